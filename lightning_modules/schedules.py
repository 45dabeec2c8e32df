"""Learning-rate schedules as factors of the peak rate."""

import math
from collections.abc import Callable
from typing import Literal

LRSchedule = Literal["cosine", "constant"]


def lr_factor(schedule: LRSchedule, warmup_steps: int, total_steps: float) -> Callable[[int], float]:
    """Factor by which the peak learning rate is multiplied at each optimiser step.

    Args:
        schedule: "cosine" falls to 0 at ``total_steps`` (Loshchilov & Hutter 2017, eq. 5, one cycle).
        warmup_steps: steps of linear rise before.
        total_steps: optimiser steps of the whole run.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if schedule == "constant":
            return 1.0
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return factor
