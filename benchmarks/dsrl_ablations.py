"""Gather DSRL runs into one table: a row per evaluation on selection episodes, runs that went badly included.

    python -m benchmarks.dsrl_ablations --runs runs/dsrl/* --output docs/results/dsrl_ablations.csv

A run is a folder that ``cli.py dsrl`` wrote. Rows of runs that the table holds already are replaced, all others kept,
so that the table grows as runs end. ``settings`` are those that differ from ``configs/dsrl_<task>.yaml``.
"""

import argparse
import csv
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from common.files import atomic_path

COLUMNS = (
    "run",
    "task",
    "base",
    "learner",
    "settings",
    "seed",
    "env_steps",
    "episodes",
    "mean_success",
    "mean_length",
    "sample_success",
    "sample_length",
    "updates",
    "wall_s",
    "commit",
)
# What does not make it another run.
NOT_SETTINGS = ("bc_checkpoint", "output", "task", "seed", "demonstrations.path", "learner.algorithm")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


@functools.cache
def task_settings(task: str) -> dict[str, Any]:
    """What ``configs/dsrl_<task>.yaml`` stands for, defaults included."""
    command = [sys.executable, "cli.py", "dsrl", "--config", f"configs/dsrl_{task}.yaml", "--print_config"]
    command += ["--bc_checkpoint", "none"]
    return flatten(yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def run_rows(folder: Path, commit: str) -> list[dict[str, Any]]:
    """The table's rows of the run in ``folder``; none before its first evaluation."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    reference = task_settings(config["task"])
    changed = [
        f"{key}={value}"
        for key, value in flatten(config).items()
        if key not in NOT_SETTINGS and value != reference.get(key)
    ]
    rows = []
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["eval/deterministic_success"] or row["eval/stochastic_success"]:
                rows.append(
                    {
                        "run": folder.name,
                        "task": config["task"],
                        "base": Path(config["bc_checkpoint"]).stem,
                        "learner": config["learner"]["algorithm"],
                        "settings": " ".join(changed),
                        "seed": config["seed"],
                        "env_steps": row["env_steps"],
                        "episodes": config["evaluation"]["episodes"],
                        "mean_success": row["eval/deterministic_success"],
                        "mean_length": row["eval/deterministic_length"],
                        "sample_success": row["eval/stochastic_success"],
                        "sample_length": row["eval/stochastic_length"],
                        "updates": row["updates"],
                        "wall_s": row["time/wall_s"],
                        "commit": commit,
                    }
                )
    return rows


def merge(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write ``rows`` to the table at ``path``, in place of those of the same runs."""
    kept: list[dict[str, Any]] = []
    if path.is_file():
        runs = {row["run"] for row in rows}
        with path.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["run"] not in runs]
    with atomic_path(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, *rows])


def main() -> None:
    """Gather and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--commit", required=True, help="the code of these runs")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    merge(args.output, [row for folder in args.runs for row in run_rows(folder, args.commit)])


if __name__ == "__main__":
    main()
