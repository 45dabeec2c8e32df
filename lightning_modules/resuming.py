"""What a run that goes on needs beyond Lightning's own state."""

import math
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.optim.lr_scheduler import LambdaLR

from common.errors import UserError


def reopen_epoch(fit_loop: dict[str, Any]) -> None:
    """Let the run that goes on from this state of Lightning's loop finish an epoch that was broken off.

    Lightning counts an epoch that max_steps, max_time or early stopping broke off as whole, before its last hooks save.
    """
    if not fit_loop["epoch_loop.batch_progress"]["is_last_batch"]:
        for progress in fit_loop["epoch_progress"].values():
            progress["processed"] = progress["completed"]


def check_progress(found: Any, own: Any, where: str) -> None:
    """Compare Lightning's stored counters with those this version of it keeps, which it reads back unchecked.

    Raises:
        UserError: they differ in names or kinds, or are negative.
    """
    if isinstance(own, dict) and isinstance(found, dict):
        for key, value in own.items():
            check_progress(found.get(key), value, f"{where}.{key}")
    elif type(found) is not type(own) or found < 0:
        raise UserError(
            f"the checkpoint cannot be resumed from: its {where} is {found!r}, expected "
            f"{'a table' if isinstance(own, dict) else type(own).__name__}. Resume from an earlier one, with the "
            "version of lightning that wrote it."
        )


def warn_of_another_schedule(scheduler: LambdaLR) -> None:
    """Say so where the learning rate jumps because the run has become longer or shorter than it was.

    ``scheduler`` has its state back from the checkpoint, but its function of the step from this run's length.
    """
    stored, step = scheduler.get_last_lr()[0], scheduler.last_epoch
    now = scheduler.base_lrs[0] * scheduler.lr_lambdas[0](step)
    if not math.isclose(stored, now, rel_tol=1e-6, abs_tol=1e-12):
        rank_zero_warn(
            f"the run has another length than before, and its learning rate follows the length: at step {step} it goes "
            f"from {stored:.3g} to {now:.3g}. To end the run as planned give trainer.max_epochs and trainer.max_steps "
            "as before; one that shall be extended should begin with the larger value, or model.lr_schedule constant."
        )
