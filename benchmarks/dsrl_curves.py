"""Success and episode length of DSRL runs against env steps, beside their baselines, as one picture.

    python -m benchmarks.dsrl_curves --results docs/results --output docs/dsrl_curves.png

Reads ``dsrl_curves.csv`` (evaluations of the actor's mean on selection episodes) and ``dsrl.csv`` (baselines on fresh
episodes); runs are named ``<task>_<learner>_s<seed>``. One column per task (none for ``lift-strong`` and the like), one
colour per learner, a line per seed; dashed: the base with N(0, I) in the first run; dotted: the best baseline of any.
"""

import argparse
import csv
import re
from collections import defaultdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.files import atomic_path

NAME = re.compile(r"(?P<task>[a-z]+)_(?P<learner>\w+)_s(?P<seed>\d+)")
COLOURS = {"prior": "C0", "sac": "C1", "na": "C2", "sac_demo": "C3"}
BASE = "N(0, I)"
PANELS = (("success", "mean_success", "success"), ("mean_length", "mean_length", "length"))
Row = dict[str, str]


def read_rows(path: Path) -> dict[str, list[Row]]:
    """The rows of a table by run."""
    rows: dict[str, list[Row]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["run"]].append(row)
    return rows


def draw_task(axes: list[Axes], task: str, curves: dict[str, list[Row]], judged: dict[str, list[Row]]) -> None:
    """A column of panels."""
    labelled: set[str] = set()
    for run, points in curves.items():
        learner = NAME.fullmatch(run)["learner"]  # type: ignore[index]
        for panel, (_, column, _) in zip(axes, PANELS, strict=True):
            panel.plot(
                [int(point["env_steps"]) for point in points],
                [float(point[column]) for point in points],
                "o-",
                color=COLOURS.get(learner, "C4"),
                label=None if learner in labelled else learner,
                markersize=3,
                alpha=0.8,
            )
        labelled.add(learner)
    baselines = [row for run in curves for row in judged[run] if not row["policy"].startswith("steered")]
    best = max(baselines, key=lambda row: (float(row["success"]), -float(row["mean_length"])))
    first = next(row for row in baselines if row["policy"] == BASE)
    for panel, (measure, _, title) in zip(axes, PANELS, strict=True):
        panel.axhline(float(first[measure]), color="black", linestyle="--", linewidth=1, label="base, N(0, I)")
        panel.axhline(float(best[measure]), color="black", linestyle=":", linewidth=1, label="best baseline")
        panel.set(xlabel="env steps, warm start included", ylabel=title)
        panel.grid(alpha=0.3)
    axes[0].set(title=task, ylim=(0, 1.02))
    axes[0].legend(fontsize="small", loc="lower right")


def draw(results: Path) -> Figure:
    """One column of panels per task."""
    judged = read_rows(results / "dsrl.csv")
    tasks: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for run, points in read_rows(results / "dsrl_curves.csv").items():
        match = NAME.fullmatch(run)
        if match:
            tasks[match["task"]][run] = points
    figure = Figure(figsize=(5 * len(tasks), 6), layout="constrained")
    panels = figure.subplots(len(PANELS), len(tasks), squeeze=False)
    for i, task in enumerate(sorted(tasks)):
        draw_task(list(panels[:, i]), task, tasks[task], judged)
    return figure


def main() -> None:
    """Read the tables, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--output", type=Path, default=Path("docs/dsrl_curves.png"))
    args = parser.parse_args()
    figure = draw(args.results)
    with atomic_path(args.output) as partial:
        figure.savefig(partial, format="png", dpi=80)


if __name__ == "__main__":
    main()
