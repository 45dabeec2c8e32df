"""Stops a run whose loss is no longer a number, and keeps what is needed to see why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.checkpoints import LastCheckpoint
from callbacks.lookup import find
from common.errors import UserError
from common.files import atomic_path


@dataclass(frozen=True)
class Step:
    """Where a loss came from; the batch as the module got it."""

    number: int
    epoch: int
    batch_idx: int
    batch: Any


class StopOnNonFinite(Callback):
    """Raises when a training loss is NaN or infinite, before any checkpoint can take the damage.

    One process on a CPU looks at each loss before its backward pass, so the weights are still sound. A GPU is asked
    only every ``STRIDE`` steps, and several ranks agree as often, since each look waits for the device.

    Writes ``non_finite.pt`` beside the checkpoints (``non_finite_rank1.pt`` for rank 1 and so on): step, epoch, batch
    index, loss, the batch itself, weights and optimiser state. ``torch.load(..., weights_only=True)`` reads it.
    """

    STRIDE = 50

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, Step]] = []  # the losses since the last look
        self._batch: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        step = Step(trainer.global_step, trainer.current_epoch, trainer.fit_loop.batch_idx, self._batch)
        self._seen.append((loss.detach(), step))
        alone_on_cpu = trainer.world_size == 1 and loss.device.type == "cpu"
        if alone_on_cpu or len(self._seen) >= self.STRIDE:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer, pl_module)
        weights = list(pl_module.parameters())
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise UserError(
                f"training stopped at step {trainer.global_step}: the weights are not finite, though the loss was. "
                f"The checkpoints already there are intact. {REMEDY}"
            )

    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._seen:
            return
        seen, self._seen = self._seen, []
        finite = torch.isfinite(torch.stack([loss for loss, _ in seen])).tolist()
        mine = None if all(finite) else seen[finite.index(False)]
        found = mine is not None
        if trainer.world_size > 1:
            found = trainer.strategy.reduce_boolean_decision(found, all=False)
        if found:
            self._stop(trainer, module, mine)

    def _stop(self, trainer: Trainer, module: LightningModule, mine: tuple[Tensor, Step] | None) -> None:
        if mine is None:
            raise UserError("training stopped: another rank's loss is not finite; see its message")
        loss, step = mine
        suffix = f"_rank{trainer.global_rank}" if trainer.global_rank else ""
        last = find(trainer, LastCheckpoint)
        folder = Path(trainer.default_root_dir) if last is None else last.path.parent
        path = folder / f"non_finite{suffix}.pt"
        state = {
            "step": step.number,
            "epoch": step.epoch,
            "batch_idx": step.batch_idx,
            "loss": loss.cpu(),
            "batch": [tensor.cpu() for tensor in step.batch],
            "state_dict": module.state_dict(),
            "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
        }
        with atomic_path(path) as partial:
            torch.save(state, partial)
        raise UserError(
            f"training stopped: the loss is {float(loss)} at step {step.number} (epoch {step.epoch}, batch "
            f"{step.batch_idx} of it). {path} holds that batch, the weights and the optimiser; the checkpoints "
            f"beside it are intact. {REMEDY}"
        )


REMEDY = "Lower model.lr, set trainer.gradient_clip_val, or use trainer.precision 32-true; `inspect` checks the data."
