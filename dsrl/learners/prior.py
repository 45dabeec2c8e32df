"""Prior-regularised SAC: the actor starts as scaled Gaussian noise and is held near it by a KL term."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.sac.policies import Actor

from common.errors import UserError
from common.number_types import NonNegativeInt, PositiveFloat
from dsrl.learners.base import LearnerConfig, SteeringSAC
from dsrl.networks import hidden_layers, start_near_zero
from dsrl.noise_space import NoiseScale

if TYPE_CHECKING:
    from dsrl.config import DSRLConfig


@dataclass
class PriorConfig(LearnerConfig):
    """Prior-regularised SAC.

    Args:
        prior_scale: s0, the noise that the actor starts as is s0 N(0, I). null: the one of warm_start.noise_scales with
            which the warm start succeeded most often.
        kl_target: KL to the prior, in nats over the whole chunk, that an automatic coefficient aims at.
        kl_open_steps: env steps after the warm start over which the KL target opens from 0 to kl_target.
    """

    algorithm: str = "prior"
    prior_scale: PositiveFloat | None = None
    kl_target: PositiveFloat = 8.0
    kl_open_steps: NonNegativeInt = 0

    def check(self, run: "DSRLConfig") -> None:
        scales = self.start_scales() or run.warm_start.noise_scales
        if max(scales) >= run.action_magnitude:
            raise UserError(
                f"the prior's scale {max(scales)} (--learner.prior_scale, or the largest of --warm_start.noise_scales) "
                f"must lie between 0 and --action_magnitude {run.action_magnitude}, where the Gaussian is cut off. "
                "Three times the scale leaves it whole."
            )

    def start_scales(self) -> Sequence[float]:
        return [] if self.prior_scale is None else [self.prior_scale]


class PriorActor(Actor):
    """Unsquashed Gaussian u = scale (m(s) + sigma(s) eps) that starts as the scaled prior, u = scale eps.

    In place of the log probability it returns KL(actor || prior) in closed form, so that SAC's entropy bonus and its
    automatic coefficient become a pull towards the prior: with ``target_entropy = -K`` the coefficient
    holds the KL at K.

    Args:
        prior_scale: standard deviation of the prior in scaled units, s0 / action_magnitude; a buffer, so that it is
            saved with the weights.
    """

    prior_scale: torch.Tensor

    def __init__(self, *args: Any, layer_norm: bool = False, prior_scale: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("prior_scale", torch.tensor(float(prior_scale)))
        self.latent_pi = hidden_layers(self.features_dim, self.net_arch, self.activation_fn, layer_norm)
        start_near_zero(self.mu)
        start_near_zero(self.log_std)

    def get_action_dist_params(self, obs: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Mean and log standard deviation (B, A), in units of the prior's standard deviation."""
        mean, log_std, extra = super().get_action_dist_params(obs)
        return mean, log_std.clamp(-3.0, 1.0), extra

    def sample(self, obs: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled noise (B, A) for standard normal ``eps`` (B, A), and KL(actor || prior) (B, 1)."""
        mean, log_std, _ = self.get_action_dist_params(obs)
        action = (self.prior_scale * (mean + log_std.exp() * eps)).clamp(-1.0, 1.0)
        kl = 0.5 * (mean.pow(2) + (2 * log_std).exp() - 1 - 2 * log_std).sum(dim=1, keepdim=True)
        return action, kl

    def forward(self, obs: Any, deterministic: bool = False) -> torch.Tensor:
        mean, log_std, _ = self.get_action_dist_params(obs)
        eps = torch.zeros_like(mean) if deterministic else torch.randn_like(mean)
        return (self.prior_scale * (mean + log_std.exp() * eps)).clamp(-1.0, 1.0)

    def action_log_prob(self, obs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        mean, _, _ = self.get_action_dist_params(obs)
        action, kl = self.sample(obs, torch.randn_like(mean))
        return action, kl[:, 0]


class PriorSAC(SteeringSAC):
    """SAC whose penalty is the KL to scaled Gaussian noise."""

    config_type = PriorConfig
    actor_type = PriorActor
    config: PriorConfig

    @classmethod
    def actor_options(cls, config: LearnerConfig, scale: NoiseScale) -> dict[str, Any]:
        return {"prior_scale": scale.scaled((*config.start_scales(), 1.0)[0])}

    def penalty_target(self) -> float:
        return -self.config.kl_target

    def begin_acting(self, successes: Mapping[str, Sequence[int]]) -> str | None:
        """Start as the noise that served the frozen policy best, unless the settings name one."""
        if self.config.prior_scale is not None:
            return None
        # Among equals the widest: it leaves the most to choose from.
        name = max(successes, key=lambda scale: (float(np.mean(successes[scale])), float(scale)))
        for actor in {self.policy.actor, self.policy.played_actor}:
            actor.prior_scale.fill_(self.scale.scaled(float(name)))
        return f"the actor starts as w ~ {name} N(0, I)"

    def at_step(self, env_steps: int) -> None:
        """Open the KL target: from 0 at the warm start's end to ``kl_target``."""
        if self.config.kl_open_steps > 0:
            self.target_entropy = self.penalty_target() * min(1.0, env_steps / self.config.kl_open_steps)
