"""DSRL-NA: critics over executed actions, distilled into critics over noise (Wagenmaker et al. 2025, algorithm 2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from dsrl.learners.sac import NoiseSAC, SACConfig
from dsrl.networks import EnsembleCritic, SteeringPolicy
from dsrl.prefill import ChunkTransitions


@dataclass
class NAConfig(SACConfig):
    """DSRL-NA."""

    algorithm: str = "na"


class NoiseAliasingPolicy(SteeringPolicy):
    """Adds a second ensemble, Q^W over noise, beside Q^A."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.noise_critic = self.make_critic()
        self.noise_critic.optimizer = self.make_optimizer(self.noise_critic, lr_schedule)

    @property
    def noise_critic_ensemble(self) -> EnsembleCritic:
        return self.noise_critic


class NoiseAliasingSAC(NoiseSAC):
    """SAC with Q^A(s, a) over action chunks, trained by TD, and Q^W(s, w), regressed to Q^A(s, decode(s, w)).

    Many noises decode to nearly the same chunk; Q^A knows what all of them are worth from one of them. The actor climbs
    Q^W alone. Only Q^A has target critics. The buffer keeps chunks, not noise.
    """

    config_type = NAConfig
    policy_type = NoiseAliasingPolicy
    config: NAConfig
    policy: NoiseAliasingPolicy

    def decode(self, obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Flattened chunks (B, H*A) for normalised observations (B, D) and noise (B, H*A)."""
        policy = self.decoder.policy
        shaped = noise.view(-1, *policy.chunk_shape)
        return policy.decode_normalized(obs, shaped, self.decoder.ddim_steps).flatten(1)

    def stored_action(self, scaled_noise: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        return chunks.reshape(len(chunks), -1)

    def demonstrated_actions(self, demonstrated: ChunkTransitions) -> np.ndarray:
        return demonstrated.chunks.reshape(len(demonstrated), -1)

    def next_action(self, next_obs: torch.Tensor, next_eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scaled, penalty = self.policy.actor.sample(next_obs, next_eps)
        return self.decode(next_obs, self.scale.noise(scaled)), penalty

    def update_critic(self, obs: torch.Tensor, actions: torch.Tensor, target: torch.Tensor) -> None:
        super().update_critic(obs, actions, target)
        self.distill(obs)

    def distill(self, obs: torch.Tensor) -> None:
        """One regression step of every member of Q^W towards its own member of Q^A, at w ~ N(0, I) within the bound."""
        shape = (len(obs), self.policy.action_dim)
        noise = self.scale.cut(torch.randn(shape, generator=self.generator, device=self.device))
        with torch.no_grad():
            target = self.policy.critic.values(obs, self.decode(obs, noise))
        values = self.policy.noise_critic.values(obs, self.scale.scaled(noise))
        loss = 0.5 * len(values) * F.mse_loss(values, target)
        self.policy.noise_critic.optimizer.zero_grad()
        loss.backward()
        self.policy.noise_critic.optimizer.step()
        self.log_losses(distill_loss=loss)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "noise_critic.optimizer": self.policy.noise_critic.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.policy.noise_critic.optimizer.load_state_dict(state["noise_critic.optimizer"])
