"""A task of milliseconds for the DSRL tests: reach a goal on a plane, steered through the noise of a toy decoder.

The decoder maps noise to motion, so that N(0, I) walks at random and the best noise points at the goal.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from envs.messages import Capture, EnvSpec, Reply
from policies.normalizer import MinMaxNormalizer
from policies.schedule import DiffusionConfig


class ToyPool:
    """``n_envs`` planes in this process, with ``EnvPool``'s messages. Observes goal - position and step / horizon."""

    def __init__(self, n_envs: int = 2, horizon: int = 12, radius: float = 0.5) -> None:
        self.n_envs, self.n_workers, self.horizon, self.radius = n_envs, n_envs, horizon, radius
        self.obs_dim, self.action_dim = 3, 2
        self.spec = EnvSpec({"env_name": "toy"}, pred_horizon=2, horizon=horizon)
        self.offset = np.zeros((n_envs, 2))
        self.clock = np.zeros(n_envs, dtype=int)
        self.replies: list[tuple[int, Reply]] = []
        self.reset_seeds: list[int] = []
        self.executed: list[tuple[int, np.ndarray]] = []

    def _obs(self, i: int) -> np.ndarray:
        return np.array([*self.offset[i], self.clock[i] / self.horizon], dtype=np.float32)

    def reset(self, i: int, seed: int, capture: Capture | None = None) -> None:
        self.reset_seeds.append(seed)
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
        self.offset[i] = np.cos(angle), np.sin(angle)
        self.clock[i] = 0
        self.replies.append((i, Reply(self._obs(i), 0.0, False, False, 0, False)))

    def step(self, i: int, actions: np.ndarray, capture: Capture | None = None) -> None:
        self.executed.append((i, actions.copy()))
        success = False
        taken = 0
        for action in actions:
            taken += 1
            self.offset[i] -= 0.2 * np.clip(action, -1, 1)
            self.clock[i] += 1
            success = bool(np.linalg.norm(self.offset[i]) < self.radius)
            if success or self.clock[i] >= self.horizon:
                break
        truncated = not success and bool(self.clock[i] >= self.horizon)
        self.replies.append((i, Reply(self._obs(i), float(success), success, truncated, taken, success)))

    def wait(self) -> list[tuple[int, Reply]]:
        replies, self.replies = self.replies, []
        return replies

    def discard(self) -> None:
        self.replies = []


@dataclass
class ToySpec:
    obs_dims: dict[str, int]
    pred_horizon: int = 2
    action_dim: int = 2
    task: str | None = "toy"
    env_args: dict[str, Any] | None = None
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)

    @property
    def feature_dim(self) -> int:
        return sum(self.obs_dims.values())


class ToyPolicy(nn.Module):
    """A frozen "diffusion policy": chunk = tanh(0.5 (rotation @ noise)), whatever the observation."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = ToySpec({"offset": 2, "clock": 1})
        rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
        self.rotation = nn.Parameter(torch.as_tensor(rotation, dtype=torch.float32), requires_grad=False)
        self.obs_normalizer = MinMaxNormalizer((3,))
        self.action_normalizer = MinMaxNormalizer((2, 2))
        self.calls: list[tuple[int, ...]] = []
        self.chunk_shape = (self.spec.pred_horizon, self.spec.action_dim)

    def decode(self, obs: torch.Tensor, noise: torch.Tensor, ddim_steps: int | None = None) -> torch.Tensor:
        self.calls.append(tuple(noise.shape))
        return torch.tanh(0.5 * noise.flatten(1) @ self.rotation.T).view_as(noise)

    decode_normalized = decode

    def invert(self, obs: torch.Tensor, chunks: torch.Tensor, ddim_steps: int | None = None) -> torch.Tensor:
        inside = chunks.clamp(-0.99, 0.99).flatten(1)
        return 2 * torch.atanh(inside).matmul(self.rotation).view_as(chunks)

    def normalize_obs(self, obs: torch.Tensor) -> torch.Tensor:
        return self.obs_normalizer.normalize(obs)
