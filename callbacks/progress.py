"""One progress line for a whole training run."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm.auto import tqdm


class RunProgress(ProgressBar):
    """Optimiser steps of the run, with losses, success rate, steps/s and the time left.

    Lightning's own bars start anew at every epoch, and an epoch of low-dim data takes a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: tqdm | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin with the first batch: everything else has said how the run begins, also where it goes on mid-epoch."""
        if self._bar is not None:
            return
        total = trainer.estimated_stepping_batches
        self._bar = tqdm(
            total=None if math.isinf(total) else int(total),
            initial=trainer.global_step,
            desc="fit",
            unit="step",
            mininterval=1.0,
            dynamic_ncols=True,
            disable=not self._enabled or not trainer.is_global_zero,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._bar is not None
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:  # none yet where the run went on at an epoch's end
            shown = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
            self._bar.set_postfix(shown, refresh=False)

    def show_rollouts(self, done: int, total: int) -> None:
        """How many of a rollout's episodes are through; after the last the bar is as before."""
        if self._bar is not None:
            self._bar.set_description_str("fit" if done == total else f"fit, rollout {done}/{total}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None  # another fit with this callback has its own
