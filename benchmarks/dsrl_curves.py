"""Success and episode length of DSRL runs against env steps, beside their baselines, as one picture.

    python -m benchmarks.dsrl_curves --runs docs/results/dsrl --output docs/dsrl_curves.png

Reads the run folders below ``--runs``, named ``<task>_<learner>_s<seed>``: ``metrics.csv`` (evaluations of the actor's
mean on selection episodes) and, where there is one, ``report.json`` (the baselines on fresh episodes). One column per
task (none for ``lift-strong`` and the like), one colour per learner, a line per seed; dashed: the base with N(0, I) in
the first report; dotted: the best baseline of any run.
"""

import argparse
import csv
import json
import re
from collections import defaultdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.files import atomic_path

NAME = re.compile(r"(?P<task>[a-z]+)_(?P<variant>\w+)_s(?P<seed>\d+)")
COLOURS = {"prior": "C0", "sac": "C1", "na": "C2", "sac_demo": "C3"}
BASE = "base, w ~ N(0, I)"
ROWS = (
    ("success_rate", "eval/deterministic_success", "success"),
    ("mean_length", "eval/deterministic_length", "length"),
)


def read_column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Env steps and values of the rows that have a value in column ``name``."""
    filled = [row for row in rows if row[name]]
    return [int(row["env_steps"]) for row in filled], [float(row[name]) for row in filled]


def draw_task(axes: list[Axes], task: str, runs: list[tuple[str, Path]]) -> None:
    """A column of panels: ``runs`` are (variant, folder)."""
    labelled: set[str] = set()
    baselines: list[dict[str, dict[str, float]]] = []
    for variant, folder in runs:
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        label = None if variant in labelled else variant
        labelled.add(variant)
        for panel, (_, column, _) in zip(axes, ROWS, strict=True):
            panel.plot(
                *read_column(rows, column), "o-", color=COLOURS.get(variant, "C4"), label=label, markersize=3, alpha=0.8
            )
        if (folder / "report.json").exists():
            agents = json.loads((folder / "report.json").read_text())["agents"]
            found = {name: judged for name, judged in agents.items() if name.startswith("base")}
            baselines += [found] if found else []
    judged = [baseline for agents in baselines for baseline in agents.values()]
    for panel, (measure, _, title) in zip(axes, ROWS, strict=True):
        if judged:
            best = max(judged, key=lambda baseline: (baseline["success_rate"], -baseline["mean_length"]))
            panel.axhline(
                baselines[0][BASE][measure], color="black", linestyle="--", linewidth=1, label="base, N(0, I)"
            )
            panel.axhline(best[measure], color="black", linestyle=":", linewidth=1, label="best baseline")
        panel.set(xlabel="env steps, warm start included", ylabel=title)
        panel.grid(alpha=0.3)
    axes[0].set(title=task, ylim=(0, 1.02))
    axes[0].legend(fontsize="small", loc="lower right")


def draw(folders: list[Path]) -> Figure:
    """One column of panels per task."""
    tasks: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for folder in folders:
        match = NAME.fullmatch(folder.name)
        if match:
            tasks[match["task"]].append((match["variant"], folder))
    figure = Figure(figsize=(5 * len(tasks), 6), layout="constrained")
    panels = figure.subplots(len(ROWS), len(tasks), squeeze=False)
    for i, task in enumerate(sorted(tasks)):
        draw_task(list(panels[:, i]), task, tasks[task])
    return figure


def main() -> None:
    """Read the runs, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("docs/results/dsrl"))
    parser.add_argument("--output", type=Path, default=Path("docs/dsrl_curves.png"))
    args = parser.parse_args()
    figure = draw(sorted(path.parent for path in args.runs.glob("*/metrics.csv")))
    with atomic_path(args.output) as partial:
        figure.savefig(partial, format="png", dpi=80)


if __name__ == "__main__":
    main()
