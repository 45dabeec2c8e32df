"""DSRL-SAC: soft actor-critic whose action is the noise (Wagenmaker et al. 2025, section 4)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.sac.policies import Actor

from common.number_types import NonNegativeFloat, PositiveInt
from dsrl.learners.base import LearnerConfig, SteeringSAC
from dsrl.networks import hidden_layers, start_near_zero


@dataclass
class SACConfig(LearnerConfig):
    """DSRL-SAC.

    Args:
        target_entropy: what an automatic coefficient aims at, over the whole chunk.
    """

    algorithm: str = "sac"
    n_critics: PositiveInt = 2
    pessimism: NonNegativeFloat | None = None
    target_pessimism: NonNegativeFloat | None = None
    ent_coef: str | float = "auto_0.01"
    target_entropy: float = 0.0


class SquashedActor(Actor):
    """SB3's tanh-squashed Gaussian, with LayerNorm after each hidden layer as an option.

    Its mean starts as w = 0: noise that is arbitrary but constant would start it below the frozen policy.
    """

    def __init__(self, *args: Any, layer_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.latent_pi = hidden_layers(self.features_dim, self.net_arch, self.activation_fn, layer_norm)
        start_near_zero(self.mu)

    def sample(self, obs: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled noise (B, A) for standard normal ``eps`` (B, A), and its log probability (B, 1)."""
        mean, log_std, _ = self.get_action_dist_params(obs)
        action = torch.tanh(torch.addcmul(mean, log_std.exp(), eps))
        gaussian = -0.5 * (eps.pow(2).sum(dim=1, keepdim=True) + eps.shape[1] * math.log(2 * math.pi))
        # The change of variables: the scale's, and the tanh's with SB3's epsilon.
        change = (log_std + torch.log(1 + 1e-6 - action.pow(2))).sum(dim=1, keepdim=True)
        return action, gaussian - change


class NoiseSAC(SteeringSAC):
    """Stock SAC over the squashed noise."""

    config_type = SACConfig
    actor_type = SquashedActor
    config: SACConfig

    def penalty_target(self) -> float:
        return self.config.target_entropy
