"""``metrics.jsonl``: what a run measured, in its own folder."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from callbacks.checkpoints import LastCheckpoint
from callbacks.lookup import find
from callbacks.rollout_success import RolloutSuccess
from callbacks.step_metrics import StepMetrics
from common.files import atomic_path
from common.metrics_file import FILE, read_rows


class RunMetrics(Checkpoint):
    """Adds a line of JSON for each epoch: ``step``, ``epoch``, what the epoch logged, and seconds by part.

    A run that goes on keeps the lines up to the step where it does. Loggers are the user's choice and may write
    elsewhere or not at all; ``report`` reads this file.

    A ``Checkpoint``, because Lightning calls those after all other callbacks.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._before = 0.0  # seconds of the attempts before this one
        self._seconds = {"validation": 0.0, "rollouts": 0.0}
        self._tick = self._validation_began = 0.0
        self._validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        last_checkpoint = find(trainer, LastCheckpoint)
        assert last_checkpoint is not None
        folder = last_checkpoint.path.parent
        self._path = folder / FILE
        goes_on = trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve().parent == folder.resolve()
        rows = read_rows(self._path) if goes_on else []
        kept = [row for row in rows if row["step"] <= trainer.global_step]
        with atomic_path(self._path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
        last = kept[-1] if kept else {}
        self._before = last.get("time/wall_s", 0.0)
        self._seconds = {part: last.get(f"time/{part}_s", 0.0) for part in self._seconds}
        self._tick = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True
        self._seconds["validation"] += time.perf_counter() - self._validation_began

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics  # reduces over the ranks: each of them has to ask
        rollout = find(trainer, RolloutSuccess)
        fresh = {
            "train": True,
            "val": self._validated,
            "rollout": rollout is not None and rollout.step == trainer.global_step,
        }
        self._validated = False
        if rollout is not None:
            self._seconds["rollouts"] += rollout.seconds
            rollout.seconds = 0.0
        if self._path is None:
            return
        row: dict[str, Any] = {"step": trainer.global_step, "epoch": trainer.current_epoch}
        # What an epoch did not measure is still there from an earlier one.
        row |= {name: value.item() for name, value in metrics.items() if fresh.get(name.partition("/")[0], True)}
        steps = find(trainer, StepMetrics)
        row |= {name: float(value) for name, value in (steps.latest if steps is not None else {}).items()}
        row["time/wall_s"] = self._before + time.perf_counter() - self._tick
        row |= {f"time/{part}_s": seconds for part, seconds in self._seconds.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
