"""The learning rate and the gradient's norm, now and then."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer


class StepMetrics(Callback):
    """Logs ``train/lr`` and ``train/grad_norm``: the gradient's L2 norm over all weights, before it is clipped.

    Every ``trainer.log_every_n_steps`` steps, and at an epoch's last one for the run's own ``metrics.jsonl``. A norm at
    each step would cost as much as clipping does.
    """

    def __init__(self) -> None:
        self.latest: dict[str, float | Tensor] = {}  # of the last step that was looked at

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not trainer.is_last_batch and (every == 0 or (trainer.global_step + 1) % every):
            return
        gradients = [each.grad for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        scaler: Any = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:  # 16-mixed: a fused optimiser takes gradients as they are, still scaled
            norm = norm / scaler.get_scale()
        self.latest = {"train/lr": optimizer.param_groups[0]["lr"], "train/grad_norm": norm}
        pl_module.log_dict(self.latest)
