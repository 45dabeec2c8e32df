"""Which checkpoints a run leaves behind."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks.rollout_success import METRIC
from common.files import check_writable


class BestCheckpoint(ModelCheckpoint):
    """The ``keep`` best checkpoints by success rate, saved after each rollout.

    Rollouts of a few dozen episodes often tie, at 100 % above all. Of equals the later is the better trained: it
    replaces the earlier.

    Args:
        dirpath: folder of the checkpoints.
        every_n_epochs: epochs between rollouts (linked from ``rollout``); 0: no rollouts, nothing to rank.
        keep: how many to keep.
    """

    def __init__(self, dirpath: str, every_n_epochs: int, keep: int = 3) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="epoch{epoch:04d}-success{" + METRIC + ":.3f}",
            auto_insert_metric_name=False,
            monitor=METRIC,
            mode="max",
            save_top_k=keep,
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
        )

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether a checkpoint with this success rate is kept."""
        if current is None or self.save_top_k < 1:
            return False
        if len(self.best_k_models) < self.save_top_k:
            return True
        # kth_best_model_path is the first, so the oldest, of the lowest ones.
        return bool(current >= self.best_k_models[self.kth_best_model_path])

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps the record of the best: the same when the interval between rollouts is changed."""
        return type(self).__name__

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the record, without checkpoints that are gone: a run may have been killed after replacing one."""
        kept = {path: rate for path, rate in state_dict["best_k_models"].items() if Path(path).is_file()}
        kth = min(kept, key=kept.__getitem__, default="")
        super().load_state_dict({**state_dict, "best_k_models": kept, "kth_best_model_path": kth})

    @property
    def latest_best_path(self) -> str | None:
        """The latest of the checkpoints with the highest success rate; None before the first."""
        best = max(self.best_k_models.values(), default=None)
        return next((path for path, rate in reversed(self.best_k_models.items()) if rate == best), None)


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: where ``fit --ckpt_path last`` goes on. Also saved at the end of the run's last epoch.

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

    @property
    def state_key(self) -> str:
        """As of ``BestCheckpoint``."""
        return type(self).__name__

    @property
    def path(self) -> Path:
        """The file."""
        assert self.dirpath is not None
        return Path(self.dirpath) / "last.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out now whether the folder can be written, and clear what a killed run left half written."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or not trainer.is_global_zero:
            return
        for stale in self.path.parent.glob(".*.ckpt.*.partial"):
            stale.unlink()
        check_writable(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save every so many epochs, and at the last one."""
        super().on_train_epoch_end(trainer, pl_module)
        epochs, steps = trainer.max_epochs or -1, trainer.max_steps
        last = trainer.should_stop or trainer.current_epoch + 1 == epochs or 0 <= steps <= trainer.global_step
        if last and not self._should_skip_saving_checkpoint(trainer):
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))
