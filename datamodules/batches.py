"""Batches of tensors that already lie on the training device: no workers, no per-item Python."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Batch = tuple[Tensor, ...]


class TensorBatches:
    """A data loader over tensors of equal length: one gather per batch, on the tensors' own device.

    The order is a pure function of (seed, epoch), so a run that resumes sees the batches it would have seen. Each
    global batch is dealt out over the ranks: an epoch covers each sample exactly once, and every rank takes equally
    many steps. Lightning finds ``set_epoch`` through ``sampler`` and the position through ``state_dict``.

    Args:
        tensors: each (N, ...), on one device.
        batch_size: samples per batch and rank. The last batch of an epoch may be smaller, or larger by fewer than
            ``world_size`` samples.
        shuffle: draw a new order each epoch.
        seed: of the order.
        rank, world_size: this process's share.
        resumable: keep the position within an epoch when iteration is broken off; else each iteration starts anew.
    """

    def __init__(
        self,
        tensors: Batch,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        resumable: bool = False,
    ) -> None:
        self.tensors = tensors
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.resumable = resumable
        self.sampler = self  # Lightning calls dataloader.sampler.set_epoch
        self.batch_sampler = None  # and, having found a sampler, asks for this
        self._epoch = 0
        self._next_batch = 0

    @property
    def num_samples(self) -> int:
        return self.tensors[0].shape[0]

    def __len__(self) -> int:
        global_batch = self.batch_size * self.world_size
        full, rest = divmod(self.num_samples, global_batch)
        # A rest too small to give every rank a sample joins the batch before it.
        return full + (1 if rest >= self.world_size or full == 0 else 0)

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch`` from its first batch, unless the position already lies within it (after a resume)."""
        if epoch != self._epoch:
            self._epoch, self._next_batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The position, for Lightning's checkpoint."""
        return {"epoch": self._epoch, "next_batch": self._next_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        self._epoch, self._next_batch = state["epoch"], state["next_batch"]

    def __iter__(self) -> Iterator[Batch]:
        # Everything is read at the first next(): Lightning creates the iterator before it sets epoch and position.
        if self._next_batch >= len(self) or not self.resumable:
            self._next_batch = 0
        order = self._order(self._epoch)
        while self._next_batch < len(self):
            indices = self._global_indices(order, self._next_batch)[self.rank :: self.world_size]
            self._next_batch += 1
            yield tuple(tensor[indices] for tensor in self.tensors)

    def global_batch_size(self, index: int) -> int:
        """Samples of batch ``index`` over all ranks."""
        start = index * self.batch_size * self.world_size
        return self.num_samples - start if index == len(self) - 1 else self.batch_size * self.world_size

    def _global_indices(self, order: Tensor, index: int) -> Tensor:
        start = index * self.batch_size * self.world_size
        return order[start : start + self.global_batch_size(index)]

    def _order(self, epoch: int) -> Tensor:
        device = self.tensors[0].device
        if not self.shuffle:
            return torch.arange(self.num_samples, device=device)
        # Drawn on the CPU, so that the order is the same on every device and rank.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.num_samples, generator=generator).to(device)
