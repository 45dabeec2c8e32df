"""Agents for ``run_episodes``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from policies.diffusion_policy import DiffusionPolicy
from rollouts.loop import Episode


class DiffusionAgent:
    """Samples chunks of a diffusion policy: DDIM-decodes noise that each episode draws from its own generator."""

    def __init__(
        self,
        policy: DiffusionPolicy,
        noise_scale: float = 1.0,
        noise_clip: float | None = None,
        ddim_steps: int | None = None,
    ) -> None:
        """
        Args:
            policy: decodes, on the device it is on, in the mode it is in.
            noise_scale: standard deviation of the noise; 1 as in training, 0 the deterministic mode.
            noise_clip: largest absolute value of the noise; None: unbounded.
            ddim_steps: None: the policy's own default.
        """
        self._policy = policy
        self._noise_scale = noise_scale
        self._noise_clip = noise_clip
        self._ddim_steps = ddim_steps

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        shape = self._policy.chunk_shape
        noise = np.stack([episode.rng.standard_normal(shape, dtype=np.float32) for episode in episodes])
        noise *= self._noise_scale
        if self._noise_clip is not None:
            noise = noise.clip(-self._noise_clip, self._noise_clip)
        device = next(self._policy.parameters()).device
        with torch.inference_mode(), _one_thread():
            actions = self._policy.decode(
                torch.from_numpy(obs).to(device), torch.from_numpy(noise).to(device), self._ddim_steps
            )
        return actions.cpu().numpy()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one CPU: workers simulate on the others, and threads that wait for one another cost far more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
