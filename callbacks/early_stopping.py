"""Ends a run whose success rate has stopped rising."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from callbacks.lookup import find
from callbacks.rollout_success import METRIC, RolloutSuccess
from common.errors import UserError


class StopOnPlateau(EarlyStopping):
    """Ends training when the success rate has not risen for ``patience`` rollouts.

    Lightning's own ``EarlyStopping`` looks after each epoch or validation: before the first rollout there is nothing to
    look at, and between two rollouts it would count the same rate several times.

    Args:
        patience: rollouts without a rise.
        min_delta: what counts as a rise, in success rate.
        stopping_threshold: end as soon as the success rate exceeds this.
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0, stopping_threshold: float | None = None) -> None:
        super().__init__(
            monitor=METRIC,
            mode="max",
            patience=patience,
            min_delta=min_delta,
            stopping_threshold=stopping_threshold,
            strict=False,
            check_on_train_epoch_end=True,
        )
        self._looked_at = -1  # RolloutSuccess.step of the rate that was looked at last

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a run in which it could never do anything."""
        super().setup(trainer, pl_module, stage)
        rollouts = find(trainer, RolloutSuccess)
        if stage == "fit" and (rollouts is None or not rollouts.every_n_epochs):
            raise UserError("StopOnPlateau needs rollouts: give --rollout.every_n_epochs a number above 0")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look once at each rate."""
        rollouts = find(trainer, RolloutSuccess)
        if rollouts is not None and rollouts.step != self._looked_at:
            self._looked_at = rollouts.step
            super().on_train_epoch_end(trainer, pl_module)


def check_early_stopping(trainer: Trainer) -> None:
    """Refuse Lightning's ``EarlyStopping`` on a metric of the rollouts.

    Raises:
        UserError: there is one.
    """
    for callback in trainer.early_stopping_callbacks:
        assert isinstance(callback, EarlyStopping)
        if callback.monitor.startswith("rollout/") and not isinstance(callback, StopOnPlateau):
            raise UserError(
                f"EarlyStopping cannot watch {callback.monitor}: it looks at every epoch, and a rollout comes only "
                "every --rollout.every_n_epochs. Give --trainer.callbacks+=callbacks.early_stopping.StopOnPlateau, "
                "whose patience counts rollouts"
            )
