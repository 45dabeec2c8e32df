"""Keeps what `predict` computes."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from common.errors import UserError
from common.files import atomic_path, check_writable


class PredictionFile(Callback):
    """Writes the chunks that `predict` samples for the validation demonstrations, beside the demonstrated ones.

    The file holds ``obs`` (N, obs_dim), ``demonstrated`` and ``predicted`` (N, pred_horizon, action_dim), float32, in
    raw units.

    Args:
        output: the .npz file to write; needed by `predict` alone.
    """

    def __init__(self, output: str | None = None) -> None:
        self.output = output
        self._batches: list[tuple[Tensor, ...]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        if self.output is None:
            raise UserError("predict needs a file to write to: give --predictions.output FILE.npz")
        if trainer.world_size > 1:
            raise UserError(f"predict runs on one device, found {trainer.world_size}: give --trainer.devices 1")
        check_writable(self.output)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batches.append(tuple(tensor.float().cpu() for tensor in (*batch, outputs)))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.output is not None
        columns = zip(*self._batches, strict=True)
        obs, demonstrated, predicted = (np.concatenate([tensor.numpy() for tensor in column]) for column in columns)
        with atomic_path(self.output) as partial, partial.open("wb") as file:
            np.savez(file, obs=obs, demonstrated=demonstrated, predicted=predicted)
        print(f"wrote {Path(self.output)}")
