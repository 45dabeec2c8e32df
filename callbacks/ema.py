"""Exponential moving average of the policy's weights."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from common.errors import UserError
from lightning_modules import DiffusionBC


class EMA(Callback):
    """Feeds ``DiffusionBC.ema_policy`` after each optimiser step: ema <- d * ema + (1 - d) * weights.

    At update n, d is min(decay, (1 + n) / (10 + n)), so that a short run is not held back by its initial weights (the
    schedule of TensorFlow's ExponentialMovingAverage).

    A network's buffers, such as a batch norm's running statistics, are copied as they are.

    Args:
        decay: d, once warmed up.
    """

    def __init__(self, decay: float = 0.995) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"ema.decay is {decay}: expected 0 or more, below 1")
        self.decay = decay
        self._updates = 0
        self._step = -1
        self._averages: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DiffusionBC)
        # Taken here, when strategies have placed the weights; lists for the foreach kernels.
        self._averages = list(pl_module.ema_policy.parameters())
        self._weights = [weight.detach() for weight in pl_module.policy.parameters()]
        average, network = pl_module.ema_policy.network, pl_module.policy.network
        stored = set(network.state_dict())  # constant tables are not
        buffers = zip(average.named_buffers(), network.named_buffers(), strict=True)
        self._buffers = [(mine, theirs) for (name, mine), (_, theirs) in buffers if name in stored]
        self._updates = int(pl_module.ema_updates)
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # gradients are still being accumulated
            return
        assert isinstance(pl_module, DiffusionBC)
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for average, buffer in self._buffers:
            average.copy_(buffer)
        self._updates += 1
        pl_module.ema_updates += 1
