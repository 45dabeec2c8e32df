"""A run's settings beside what came of it, in its loggers."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.checkpoints import BestCheckpoint
from callbacks.lookup import find
from callbacks.rollout_success import METRIC

FINAL = {"hp/success_rate": METRIC, "hp/train_loss": "train/loss", "hp/val_loss": "val/loss"}
BEST = "hp/best_success_rate"


def log_settings(trainer: Trainer, settings: Mapping[str, Any]) -> None:
    """Give every logger the run's settings, by dotted names: plain values."""
    for logger in trainer.loggers:
        logger.log_hyperparams(dict(settings))


def log_outcome(trainer: Trainer, settings: Mapping[str, Any]) -> None:
    """Give TensorBoard's HPARAMS page the settings with what the run came to: success rate, losses.

    Other loggers show settings beside the last values of all metrics by themselves.
    """
    measured = {name: trainer.callback_metrics.get(source) for name, source in FINAL.items()}
    checkpoints = find(trainer, BestCheckpoint)
    measured[BEST] = checkpoints.best_model_score if checkpoints is not None else None
    outcome = {name: float(value) for name, value in measured.items() if value is not None}
    for logger in trainer.loggers:
        if outcome and isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(settings), outcome, trainer.global_step)
