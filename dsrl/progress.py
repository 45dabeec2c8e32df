"""What a run shows while it goes: a bar on a terminal, a line per log row anywhere else."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = {
    "rollout/success": "success",
    "eval/deterministic_success": "eval mean",
    "eval/stochastic_success": "eval draw",
    "train/penalty": "KL or log p",
    "train/ent_coef": "coef",
    "train/critic_loss": "critic loss",
    "train/q_pi": "Q",
    "time/updates_per_s": "updates/s",
    "time/wall_s": "s",
}


class ProgressLine:
    """Progress of one run.

    Args:
        total: environment steps of the run.
    """

    def __init__(self, total: int) -> None:
        self.console = Console()
        text = TextColumn("{task.completed:,.0f}/{task.total:,.0f} env steps  success {task.fields[success]:.2f}")
        bar = (BarColumn(bar_width=20), text, TextColumn("{task.fields[updates]:,} updates"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.bar = Progress(*bar, *times, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=total, success=0.0, updates=0)
        self.bar.start()

    def update(self, env_steps: int, recent: Iterable[tuple[bool, int]], updates: int) -> None:
        """Move the bar; ``recent`` are (success, length) of the last episodes."""
        if not self.bar.disable:
            success = float(np.mean([float(success) for success, _ in recent] or [0.0]))
            self.bar.update(self.task, completed=env_steps, success=success, updates=updates)

    def say(self, line: str) -> None:
        """One line above the bar."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def log(self, row: dict[str, Any]) -> None:
        """A metrics row as one line."""
        parts = [f"{title} {row[key]:.3g}" for key, title in SHOWN.items() if key in row]
        self.say(f"{row['env_steps']:>8,} env steps  " + "  ".join(parts))

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.stop()
