"""Success and episode length of DSRL runs against env steps, beside their baselines, as one picture.

    python -m benchmarks.dsrl_curves --results docs/results --output docs/dsrl_curves.png

Reads ``dsrl_curves.csv`` (evaluations of the actor's mean on selection episodes), ``dsrl.csv`` (baselines on fresh
episodes) and ``docs/curves.yaml``, which says what stands together. One column per base; a line is the mean over a
learner's training seeds, its band their least and greatest. Dashed: the base as it plays by itself; dotted: the best
baseline of each seed; both are means over the seeds of the first learner.
"""

import argparse
import csv
import itertools
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.files import atomic_path

COLUMNS = 4
PANELS = (("success", "mean_success", "success"), ("mean_length", "mean_length", "length"))
Row = dict[str, str]


def read_rows(path: Path) -> dict[str, list[Row]]:
    """The rows of a table by run."""
    rows: dict[str, list[Row]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["run"]].append(row)
    return rows


def over_seeds(curves: list[list[Row]], column: str) -> list[tuple[float, float, float, float]]:
    """(env steps, mean, least, greatest) of each evaluation; the runs were evaluated equally often."""
    points = []
    for rows in zip(*curves, strict=True):
        values = [float(row[column]) for row in rows]
        steps = statistics.mean(int(row["env_steps"]) for row in rows)
        points.append((steps, statistics.mean(values), min(values), max(values)))
    return points


def draw_column(
    axes: list[Axes], group: dict[str, Any], curves: dict[str, list[Row]], judged: dict[str, list[Row]]
) -> None:
    """A column of panels."""
    learners, own_noise = group["learners"], group.get("plays", "N(0, I)")
    for panel, (_, column, _) in zip(axes, PANELS, strict=True):
        for learner, runs in learners.items():
            steps, mean, least, greatest = zip(*over_seeds([curves[run] for run in runs], column), strict=True)
            steps = tuple(each + group.get("copies", 0) for each in steps)
            panel.plot(steps, mean, "o-", label=f"{learner}, {len(runs)} seed{'s' * (len(runs) > 1)}", markersize=3)
            panel.fill_between(steps, least, greatest, alpha=0.2)
    played = [
        [row for row in judged[run] if not row["policy"].startswith("steered")] for run in next(iter(learners.values()))
    ]
    first = [next(row for row in rows if row["policy"] == own_noise) for rows in played]
    best = [max(rows, key=lambda row: (float(row["success"]), -float(row["mean_length"]))) for rows in played]
    for panel, (measure, _, title) in zip(axes, PANELS, strict=True):
        for rows, style, label in ((first, "--", "base by itself"), (best, ":", "best baseline")):
            level = statistics.mean(float(row[measure]) for row in rows)
            panel.axhline(level, color="black", linestyle=style, linewidth=1, label=label)
        panel.set(ylabel=title)
        panel.locator_params(axis="x", nbins=5)
        panel.grid(alpha=0.3)
    axes[0].set(ylim=(None, 1.01))
    axes[-1].set(xlabel="env steps, warm start and copies included")
    axes[-1].legend(fontsize="small", loc="upper right")  # where episodes grow short, it is free


def draw(results: Path, groups: Path) -> Figure:
    """One column of panels per base, ``COLUMNS`` of them beside one another."""
    bases: dict[str, dict[str, Any]] = yaml.safe_load(groups.read_text())
    curves, judged = read_rows(results / "dsrl_curves.csv"), read_rows(results / "dsrl.csv")
    bands = math.ceil(len(bases) / COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 5.5 * bands), layout="constrained")
    panels = figure.subplots(bands * len(PANELS), COLUMNS, squeeze=False)
    columns = [list(band[:, i]) for band in np.split(panels, bands) for i in range(COLUMNS)]
    for column, (title, group) in zip(columns, bases.items(), strict=False):
        draw_column(column, group, curves, judged)
        column[0].set(title=title)
    for unused in itertools.chain(*columns[len(bases) :]):
        unused.set_axis_off()
    return figure


def main() -> None:
    """Read the tables, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--groups", type=Path, default=Path("docs/curves.yaml"))
    parser.add_argument("--output", type=Path, default=Path("docs/dsrl_curves.png"))
    args = parser.parse_args()
    figure = draw(args.results, args.groups)
    with atomic_path(args.output) as partial:
        figure.savefig(partial, format="png", dpi=80)


if __name__ == "__main__":
    main()
