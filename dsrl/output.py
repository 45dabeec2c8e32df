"""What a run shows and keeps while it goes: SB3's logger for its rows, a bar or a line per row on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from stable_baselines3.common.logger import (
    CSVOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    make_output_format,
)
from torch.utils.tensorboard import SummaryWriter

from dsrl.config import LogFormat

Row = dict[str, float | int]

SHOWN = {
    "rollout/success": "success",
    "eval/deterministic_success": "eval mean",
    "eval/stochastic_success": "eval draw",
    "train/penalty": "KL or log p",
    "train/ent_coef": "coef",
    "train/critic_loss": "critic loss",
    "train/q_pi": "Q",
    "time/updates_per_s": "updates/s",
    "time/wall_s": "seconds",
}


class Terminal(KVWriter):
    """Progress of one run: a bar on a terminal, and a line per row of metrics anywhere.

    Args:
        total: environment steps of the run.
    """

    def __init__(self, total: int) -> None:
        self.console = Console()
        text = TextColumn("{task.completed:,.0f}/{task.total:,.0f} env steps  success {task.fields[success]}")
        bar = (BarColumn(bar_width=20), text, TextColumn("{task.fields[updates]:,} updates"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.bar = Progress(*bar, *times, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=total, success="-", updates=0)
        self.bar.start()

    def update(self, env_steps: int, recent: Sequence[tuple[bool, int]], updates: int) -> None:
        """Move the bar; ``recent`` are (success, length) of the last episodes."""
        if not self.bar.disable:
            success = f"{sum(success for success, _ in recent) / len(recent):.2f}" if recent else "-"
            self.bar.update(self.task, completed=env_steps, success=success, updates=updates)

    def say(self, line: str) -> None:
        """One line above the bar."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """A row of metrics as one line."""
        parts = [f"{title} {key_values[key]:.3g}" for key, title in SHOWN.items() if key in key_values]
        self.say(f"{step:>8,} env steps  " + "  ".join(parts))

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.stop()


class _TensorBoard(TensorBoardOutputFormat):
    """SB3's, but what a stopped run logged beyond the point it is resumed from does not count."""

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=purge_step)
        self._is_closed = False


class Metrics:
    """Rows of a run, each dumped to ``metrics.csv``, to the terminal, and in further formats of SB3's logger.

    Args:
        folder: gets ``metrics.csv``, and of the formats ``tensorboard/``, ``progress.json``, ``log.txt``.
        terminal: shows each row.
        rows: those of the run so far, when resuming: files other than TensorBoard's are written anew.
        formats: what else; stdout is SB3's table.
    """

    def __init__(
        self,
        folder: Path,
        terminal: Terminal,
        rows: Sequence[Row] = (),
        formats: Sequence[LogFormat] = ("tensorboard",),
    ) -> None:
        self.rows = list(rows)
        folder.mkdir(parents=True, exist_ok=True)
        files: list[KVWriter] = [CSVOutputFormat(str(folder / "metrics.csv"))]
        files += [make_output_format(each, str(folder)) for each in formats if each in ("json", "log")]
        for row in rows:
            for file in files:
                file.write(dict(row), dict.fromkeys(row, ()))
        shown: list[KVWriter] = [terminal]
        if "tensorboard" in formats:
            shown.append(_TensorBoard(folder / "tensorboard", int(rows[-1]["env_steps"]) + 1 if rows else None))
        if "stdout" in formats:
            shown.append(make_output_format("stdout", str(folder)))
        self.logger = Logger(str(folder), [*files, *shown])

    def add(self, row: Row) -> None:
        """Keep and dump a row; ``env_steps`` is its step."""
        rounded = {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}
        self.rows.append(rounded)
        for name, value in rounded.items():
            self.logger.record(name, value, exclude="tensorboard" if name == "env_steps" else None)
        self.logger.dump(int(row["env_steps"]))

    def close(self) -> None:
        """Close the files, and the terminal's bar."""
        self.logger.close()
