"""The diffusion policy as simulation uses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class FrozenDecoder:
    """The diffusion policy as arrays in, arrays out, without gradient; tensors, with one.

    Args:
        policy: a ``DiffusionPolicy``, or anything with its ``decode``, ``invert`` and ``normalize_obs``.
        ddim_steps: denoising steps; None takes the policy's own.
    """

    def __init__(self, policy: Any, ddim_steps: int | None = None) -> None:
        self.policy = policy
        self.ddim_steps = ddim_steps
        self.device = next(iter(policy.state_dict().values())).device

    @torch.inference_mode()
    def decode(self, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Raw observations (n, D) and noise (n, H, A) to action chunks (n, H, A)."""
        with one_thread():
            return self.policy.decode(self._tensor(obs), self._tensor(noise), self.ddim_steps).cpu().numpy()

    def decode_tensors(self, obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """``decode`` for tensors on the policy's device, differentiable in the noise."""
        return self.policy.decode(obs, noise, self.ddim_steps)

    def invert_tensors(self, obs: torch.Tensor, chunks: torch.Tensor) -> torch.Tensor:
        """Noise (n, H, A) that ``decode_tensors`` maps close to ``chunks`` (n, H, A)."""
        return self.policy.invert(obs, chunks, self.ddim_steps)

    @torch.inference_mode()
    def normalize_obs(self, obs: np.ndarray) -> np.ndarray:
        """Raw observations (n, D) to what SAC sees (n, D)."""
        return self.policy.normalize_obs(self._tensor(obs)).cpu().numpy()

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one CPU: workers simulate on the others, and threads that wait for one another cost far more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
