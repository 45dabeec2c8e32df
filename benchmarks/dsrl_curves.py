"""Learning curves of DSRL runs as one picture.

    python -m benchmarks.dsrl_curves --results docs/results --output docs/dsrl_curves.png

Reads every ``dsrl_<task>_*.csv`` (a run's ``metrics.csv``), one panel per task. Lines: training episodes (last 50);
points: the selection episodes.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from common.files import atomic_path

MARKERS = {"eval/deterministic_success": "o", "eval/stochastic_success": "x"}


def read_column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Env steps and values of the rows that have a value in column ``name``."""
    filled = [row for row in rows if row[name]]
    return [int(row["env_steps"]) for row in filled], [float(row[name]) for row in filled]


def draw(files: list[Path]) -> Figure:
    """One panel per task."""
    tasks: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        tasks[path.stem.split("_")[1]].append(path)
    figure = Figure(figsize=(6 * len(tasks), 4), layout="constrained")
    for axes, (task, paths) in zip(
        figure.subplots(1, len(tasks), squeeze=False)[0], sorted(tasks.items()), strict=True
    ):
        for path in paths:
            with path.open() as file:
                rows = list(csv.DictReader(file))
            (line,) = axes.plot(*read_column(rows, "rollout/success"), label=path.stem.removeprefix(f"dsrl_{task}_"))
            for name, marker in MARKERS.items():
                axes.plot(*read_column(rows, name), marker, color=line.get_color(), fillstyle="none")
        axes.set(title=task, xlabel="env steps, warm start included", ylabel="success", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(title="line: training; o mean, x draw", fontsize="small")
    return figure


def main() -> None:
    """Read the curves, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--output", type=Path, default=Path("docs/dsrl_curves.png"))
    args = parser.parse_args()
    figure = draw(sorted(args.results.glob("dsrl_*_*.csv")))
    with atomic_path(args.output) as partial:
        figure.savefig(partial, format="png", dpi=80)


if __name__ == "__main__":
    main()
