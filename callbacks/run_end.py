"""When a run ends."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer


def is_last_epoch(trainer: Trainer) -> bool:
    """Whether the run ends with the epoch that is ending: by its length, early stopping or ``max_time``."""
    epochs, steps = trainer.current_epoch + 1, trainer.global_step
    long_enough = epochs >= (trainer.min_epochs or 0) and steps >= (trainer.min_steps or 0)
    return (
        (trainer.should_stop and long_enough)
        or (trainer.max_epochs is not None and 0 <= trainer.max_epochs <= epochs)
        or 0 <= trainer.max_steps <= steps
    )


def why_ended(trainer: Trainer) -> str:
    """The setting that a run which has ended came up to, with its value."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"trainer.max_steps {trainer.max_steps}"
    timers = (callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
    if any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers):
        return "trainer.max_time, in which the time of all its attempts counts"
    return f"trainer.max_epochs {trainer.max_epochs}"
