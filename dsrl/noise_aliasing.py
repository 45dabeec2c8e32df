"""DSRL-NA: critics over executed actions, distilled into critics over noise (Wagenmaker et al. 2025, algorithm 2)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from dsrl.learner import SteeringSAC
from dsrl.networks import EnsembleCritic

TorchDecode = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class NoiseAliasingSAC(SteeringSAC):
    """SAC with Q^A(s, a) over action chunks, trained by TD, and Q^W(s, w), regressed to Q^A(s, decode(s, w)).

    Many noises decode to nearly the same chunk; Q^A knows what all of them are worth from one of them. The actor climbs
    Q^W alone. Only Q^A has target critics.

    Args beyond ``SteeringSAC``'s:
        distill_steps: regression steps of Q^W per update.
    """

    def __init__(self, *args: Any, distill_steps: int = 1, **kwargs: Any) -> None:
        self.distill_steps = distill_steps
        super().__init__(*args, **kwargs)

    def set_decoder(self, decode: TorchDecode) -> None:
        """Hand in the frozen policy: (normalised obs (B, D), noise (B, A)) -> flattened chunk (B, A) in [-1, 1]."""
        self.decode = decode

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "decode"]

    @property
    def magnitude(self) -> float:
        """Bound of the noise."""
        return self.policy.action_magnitude

    def stored_action(self, scaled_noise: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        return chunks.reshape(len(chunks), -1)

    def actor_critic(self) -> EnsembleCritic:
        return self.policy.noise_critic

    def next_action(self, next_obs: torch.Tensor, next_eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noise, penalty = self.policy.actor.sample(next_obs, next_eps)
        return self.decode(next_obs, self.magnitude * noise), penalty

    def _update_critic(self, obs: torch.Tensor, actions: torch.Tensor, target: torch.Tensor) -> None:
        super()._update_critic(obs, actions, target)
        for _ in range(self.distill_steps):
            self._distill(obs)

    def _distill(self, obs: torch.Tensor) -> None:
        """One regression step of every member of Q^W towards its own member of Q^A, at w ~ N(0, I) within the bound."""
        shape = (len(obs), self.policy.action_dim)
        noise = torch.randn(shape, generator=self.generator, device=self.device)
        noise = noise.clamp(-self.magnitude, self.magnitude)
        with torch.no_grad():
            target = self.policy.critic.values(obs, self.decode(obs, noise))
        values = self.policy.noise_critic.values(obs, noise / self.magnitude)
        loss = 0.5 * len(values) * F.mse_loss(values, target)
        self.policy.noise_critic.optimizer.zero_grad()
        loss.backward()
        self.policy.noise_critic.optimizer.step()
        self._log(distill_loss=loss)
