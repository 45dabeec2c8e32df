"""A replay buffer that hands out all minibatches of a train call at once, with n-step returns."""

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples

ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class ChunkReplayBuffer(ReplayBuffer):
    """SB3's replay buffer plus n-step returns, many minibatches per call, and saving as plain arrays.

    A row of the buffer is one vector step: column i is the unbroken stream of environment i's chunks. Time limits are
    stored with ``dones`` and ``timeouts`` set, so their targets bootstrap.

    Args:
        n_steps: chunks per return; shorter at an episode's end.
        gamma: discount per chunk.
        seed: of the sampling generator, which is the buffer's own.
    """

    def __init__(self, *args: Any, n_steps: int = 1, gamma: float = 0.99, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_steps = n_steps
        self.gamma = gamma
        self.rng = np.random.default_rng(seed)

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """One minibatch, drawn uniformly."""
        return self.gather(*self.draw(batch_size))

    def draw(self, n: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns (n,) of uniformly drawn transitions; ``rng`` in place of the buffer's own."""
        flat = (rng or self.rng).integers(0, self.size() * self.n_envs, size=n)
        return flat // self.n_envs, flat % self.n_envs

    def gather(self, rows: np.ndarray, columns: np.ndarray) -> ReplayBufferSamples:
        """The transitions at (rows, columns), with n-step returns, discounts gamma^k and the state k chunks later."""
        rewards = np.zeros(len(rows), dtype=np.float32)
        discounts = np.ones(len(rows), dtype=np.float32)
        last = rows.copy()
        running = np.ones(len(rows), dtype=bool)
        newest = (self.pos - 1) % self.buffer_size
        for step in range(self.n_steps):
            if step > 0:
                # A return stops at its episode's end, and at the newest row, behind which older episodes lie.
                running &= (self.dones[last, columns] == 0) & (last != newest)
                last = np.where(running, (last + 1) % self.buffer_size, last)
            rewards += running * discounts * self.rewards[last, columns]
            discounts = np.where(running, discounts * self.gamma, discounts).astype(np.float32)
        terminal = self.dones[last, columns] * (1 - self.timeouts[last, columns])
        return ReplayBufferSamples(
            observations=self._tensor(self.observations[rows, columns]),
            actions=self._tensor(self.actions[rows, columns]),
            next_observations=self._tensor(self.next_observations[last, columns]),
            dones=self._tensor(terminal[:, None]),
            rewards=self._tensor(rewards[:, None]),
            discounts=self._tensor(discounts[:, None]),
        )

    def interrupt(self) -> None:
        """Mark the newest row's unfinished episodes as cut off: they bootstrap, and no return runs past them."""
        if self.size() == 0:
            return
        newest = (self.pos - 1) % self.buffer_size
        unfinished = self.dones[newest] == 0
        self.dones[newest] = 1.0
        self.timeouts[newest] = np.maximum(self.timeouts[newest], unfinished)

    def state(self) -> dict[str, Any]:
        """What is filled, where writing goes on, and the generator's state: tensors and plain values."""
        filled = {name: torch.from_numpy(getattr(self, name)[: self.size()]) for name in ARRAYS}
        return {**filled, "pos": self.pos, "full": self.full, "rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        for name in ARRAYS:
            getattr(self, name)[: len(state[name])] = state[name].numpy()
        self.pos, self.full = state["pos"], state["full"]
        self.rng.bit_generator.state = state["rng"]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, device=self.device)
