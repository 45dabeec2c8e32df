"""Metrics of a run: ``metrics.csv`` and TensorBoard from the same rows."""

import csv
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from common.files import atomic_path

Row = dict[str, float | int]

COLUMNS = (
    "env_steps",
    "episodes",
    "updates",
    "rollout/success",
    "rollout/length",
    "rollout/noise_rms",
    "eval/deterministic_success",
    "eval/deterministic_length",
    "eval/stochastic_success",
    "eval/stochastic_length",
    "train/critic_loss",
    "train/actor_loss",
    "train/distill_loss",
    "train/q_data",
    "train/q_pi",
    "train/penalty",
    "train/ent_coef",
    "time/wall_s",
    "time/simulation_s",
    "time/decoding_s",
    "time/updates_s",
    "time/evaluation_s",
    "time/env_steps_per_s",
    "time/updates_per_s",
)


class MetricsLog:
    """Rows of a run, rewritten whole at every ``write`` so that a resumed run leaves no doubled rows.

    Args:
        folder: gets ``metrics.csv`` and TensorBoard's event files.
        rows: rows of the run so far, when resuming.
    """

    def __init__(self, folder: Path, rows: list[Row] | None = None) -> None:
        self.path = folder / "metrics.csv"
        self.rows = rows or []
        purge = int(self.rows[-1]["env_steps"]) + 1 if self.rows else None
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def add(self, row: Row) -> None:
        """Append a row with ``env_steps`` and any of ``COLUMNS``."""
        unknown = set(row) - set(COLUMNS)
        assert not unknown, unknown
        self.rows.append(row)
        for name, value in row.items():
            if name != "env_steps":
                self.writer.add_scalar(name, value, int(row["env_steps"]))

    def write(self) -> None:
        """Rewrite ``metrics.csv``."""
        with atomic_path(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for row in self.rows:
                rounded = {key: round(v, 5) if isinstance(v, float) else v for key, v in row.items()}
                writer.writerow(rounded)
        self.writer.flush()

    def close(self) -> None:
        self.write()
        self.writer.close()
