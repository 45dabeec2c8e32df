"""Which checkpoints a run leaves behind."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from callbacks.lookup import find
from callbacks.rollout_success import METRIC, RolloutSuccess
from callbacks.run_end import is_last_epoch, why_ended
from common.files import check_writable
from common.lock import run_lock


class BestCheckpoint(ModelCheckpoint):
    """The ``keep`` best checkpoints by success rate, saved after each rollout of ``RolloutSuccess``.

    Rollouts of a few dozen episodes often tie, at 100 % above all. Of equals the later is the better trained: it
    replaces the earlier.

    Args:
        dirpath: folder of the checkpoints.
        keep: how many to keep; -1: all.
    """

    def __init__(self, dirpath: str, keep: int = 3) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="epoch{epoch:04d}-success{" + METRIC + ":.3f}",
            auto_insert_metric_name=False,
            monitor=METRIC,
            mode="max",
            save_top_k=keep,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rank the weights where they were rolled out; the run's last ones are, whatever ends it."""
        rollout = find(trainer, RolloutSuccess)
        if rollout is None:
            return
        if rollout.step != trainer.global_step and is_last_epoch(trainer):
            rollout.on_train_epoch_end(trainer, pl_module)  # early stopping decided after it had its turn
        if rollout.step == trainer.global_step:
            super().on_train_epoch_end(trainer, pl_module)
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                self._remove_surplus(trainer)

    def _remove_surplus(self, trainer: Trainer) -> None:
        """Where a run went on with a smaller ``keep``, Lightning would leave more than that."""
        while 0 < self.save_top_k < len(self.best_k_models):
            worst = min(self.best_k_models, key=self.best_k_models.__getitem__)  # of equals the first, so the oldest
            del self.best_k_models[worst]
            if self._should_remove_checkpoint(trainer, worst, ""):
                self._remove_checkpoint(trainer, worst)
            best, kth = (choose(self.best_k_models, key=self.best_k_models.__getitem__) for choose in (max, min))
            self.best_model_path, self.kth_best_model_path = best, kth

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        """Not the one that the run goes on from, by whichever way to its folder."""
        goes_on_from = trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve() == Path(previous).resolve()
        return not goes_on_from and super()._should_remove_checkpoint(trainer, previous, current)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether a checkpoint with this success rate is kept."""
        if current is None or self.save_top_k == 0:
            return False
        if len(self.best_k_models) < self.save_top_k or self.save_top_k == -1:
            return True
        # kth_best_model_path is the first, so the oldest, of the lowest ones.
        return bool(current >= self.best_k_models[self.kth_best_model_path])

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps the record of the best: the same when the interval between rollouts is changed."""
        return type(self).__name__

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the record, by the names of the files: the folder may have moved since.

        Without those that are gone: a run may have been killed after replacing one.
        """
        record = {str(self._here(path)): rate for path, rate in state_dict["best_k_models"].items()}
        kept = {path: rate for path, rate in record.items() if Path(path).is_file()}
        if record and not kept:
            rank_zero_warn(
                f"none of the run's {len(record)} best checkpoints is in {self.dirpath}: the best will be chosen among "
                "those to come. To go on with the earlier ones too, copy them there, or give their --best.dirpath."
            )
        best, kth = (choose(kept, key=kept.__getitem__, default="") for choose in (max, min))
        here = {
            "dirpath": self.dirpath,
            "best_k_models": kept,
            "best_model_path": best,
            "best_model_score": kept.get(best),
            "kth_best_model_path": kth,
        }
        super().load_state_dict({**state_dict, **here})

    def _here(self, path: str) -> Path:
        assert self.dirpath is not None
        return Path(self.dirpath) / Path(path).name

    @property
    def latest_best_path(self) -> str | None:
        """The latest of the checkpoints with the highest success rate; None before the first."""
        best = max(self.best_k_models.values(), default=None)
        return next((path for path, rate in reversed(self.best_k_models.items()) if rate == best), None)


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: where ``fit --resume`` goes on.

    Also saved at the end of the run's last epoch, be it only begun. The folder is locked while the run lasts.

    Args:
        dirpath: folder of the checkpoints (linked from ``best``).
        every_n_epochs: epochs between two saves.
    """

    def __init__(self, dirpath: str, every_n_epochs: int = 10) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_epochs=every_n_epochs,
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        self._lock = ExitStack()
        self._trained = False
        self._step = -1
        self._stop = False

    @property
    def state_key(self) -> str:
        """As of ``BestCheckpoint``."""
        return type(self).__name__

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: there is one file, and its name is known."""

    @property
    def path(self) -> Path:
        """The file."""
        assert self.dirpath is not None
        return Path(self.dirpath) / "last.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out now whether the folder is ours to write, and clear what a killed run left half written."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or not trainer.is_global_zero:
            return
        self._lock.enter_context(run_lock(self.path.parent))
        for stale in self.path.parent.glob(".*.ckpt.*.partial"):
            stale.unlink()
        check_writable(self.path)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the folder to others."""
        self._lock.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As at the end."""
        super().on_exception(trainer, pl_module, exception)
        self._lock.close()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note that there is something to train."""
        super().on_train_start(trainer, pl_module)
        self._trained, self._step, self._stop = True, trainer.global_step, False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Put off a stop amid the accumulation of gradients, which no checkpoint would hold."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        accumulating, self._step = trainer.global_step == self._step, trainer.global_step
        self._stop |= trainer.should_stop
        trainer.should_stop = self._stop and not accumulating

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save every so many epochs, and at the last one."""
        super().on_train_epoch_end(trainer, pl_module)
        saved = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if is_last_epoch(trainer) and not saved and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path, weights_only=False)  # said, else Lightning says it

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where a run that was to go on is at its end already."""
        if not self._trained:
            rank_zero_warn(
                f"nothing was trained: at step {trainer.global_step} this run has come to the end that its settings "
                f"give it, {why_ended(trainer)}. To go on, give a larger value."
            )
