"""Agents for ``run_episodes``."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from policies.diffusion_policy import DiffusionPolicy
from rollouts.decoder import FrozenDecoder
from rollouts.loop import Episode


class DiffusionAgent:
    """Samples chunks of a diffusion policy: DDIM-decodes noise that each episode draws from its own generator."""

    def __init__(
        self,
        policy: DiffusionPolicy,
        noise_scale: float | None = None,
        noise_clip: float | None = None,
        ddim_steps: int | None = None,
    ) -> None:
        """
        Args:
            policy: decodes, on the device it is on, in the mode it is in.
            noise_scale: standard deviation of the noise; None: the policy's own. 1 as in training, 0 the deterministic
                mode.
            noise_clip: largest absolute value of the noise; None: unbounded.
            ddim_steps: None: the policy's own default.
        """
        self.decoder = FrozenDecoder(policy, ddim_steps)
        self._chunk_shape = policy.chunk_shape
        self._noise_scale = policy.spec.diffusion.noise_scale if noise_scale is None else noise_scale
        self._noise_clip = noise_clip

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        return self.decoder.decode(obs, self.noise(obs, episodes))

    def noise(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """The noise (B, H, A) that each episode draws next."""
        noise = np.stack([episode.rng.standard_normal(self._chunk_shape, dtype=np.float32) for episode in episodes])
        noise *= self._noise_scale
        if self._noise_clip is not None:
            noise = noise.clip(-self._noise_clip, self._noise_clip)
        return noise


class NoiseAgent(Protocol):
    """An agent whose chunks are decoded from noise."""

    @property
    def decoder(self) -> FrozenDecoder: ...

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray: ...

    def noise(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """The noise (B, H, A) of the next chunk of B episodes."""


class NoiseRecorder:
    """Plays an agent's chunks, and keeps the noise (H, A) behind each in ``chosen``, in the order of playing.

    Args:
        agent: chooses the noise.
        on_chunk: called before each chunk that is played.
    """

    def __init__(self, agent: NoiseAgent, on_chunk: Callable[[], None] = lambda: None) -> None:
        self.agent, self.on_chunk = agent, on_chunk
        self.chosen: list[np.ndarray] = []

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        self.on_chunk()
        noise = self.agent.noise(obs, episodes)
        self.chosen.extend(noise)
        return self.agent.decoder.decode(obs, noise)
