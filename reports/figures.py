"""Figures as inline SVG, one idea each, small enough for a phone's width."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.run_files import Curve, Judged, Row, Run
from rollouts.statistics import wilson_interval

WIDTH, HEIGHT = 4.6, 2.9  # inches; at 72 points an inch a little less than a phone's width
INK, MUTED, GRID = "#1d2433", "#667085", "#e4e7ec"
GOOD, BAD = "#0a7d4f", "#d1432b"
# Okabe and Ito's, which the colour-blind tell apart, less the two that are green and red here.
COLOURS = ("#0072b2", "#e69f00", "#9b4f96", "#56b4e9", "#5a5a5a", "#b8860b")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: smaller, and searchable
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.6,
}


def success_curves(runs: Sequence[Run]) -> Markup | None:
    """Success against env steps or updates with Wilson's interval; the base policy as a dashed line."""
    if not any(curve.n for run in runs for curve in run.curves):
        return None
    with _figure("Success while training") as (figure, axes):
        alone = len(runs) == 1
        named = [
            (c, c.name if alone else f"{run.path.name}: {c.name}") for run in runs for c in run.curves if alone or c.n
        ]
        for i, (curve, label) in enumerate(named):
            _draw_curve(axes, curve, COLOURS[i % len(COLOURS)], label)
        base = runs[0].base
        if alone and base is not None:
            axes.axhline(base.success_rate, color=MUTED, linestyle="--", linewidth=1.2, label=base.name)
        axes.set(xlabel=runs[0].step_name, ylabel="success rate", ylim=(-0.03, 1.03))
        _thousands(axes)
        _legend(axes)
    return figure.svg


def _draw_curve(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    steps, rates = (np.array(values) for values in zip(*curve.points, strict=True))
    if curve.n == 0:
        axes.plot(steps, rates, color=colour, linewidth=1, alpha=0.6, label=label)
        return
    intervals = [wilson_interval(round(rate * curve.n), curve.n) for rate in rates]
    low, high = (np.array(ends) for ends in zip(*intervals, strict=True))
    axes.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(steps, rates, color=colour, marker="o", markersize=3.5, label=label)


def baselines(agents: Sequence[Judged], chosen: str | None) -> Markup:
    """Every agent's success with its interval, best at the top, the chosen one in colour."""
    ordered = sorted(agents, key=lambda agent: agent.success_rate)
    with _figure("Success of each agent", height=0.75 + 0.36 * len(ordered), fit=True) as (figure, axes):
        for i, agent in enumerate(ordered):
            low, high = agent.ci95
            colour = COLOURS[0] if agent.name == chosen else MUTED
            axes.plot([low, high], [i, i], color=colour, linewidth=3, alpha=0.35, solid_capstyle="round")
            axes.plot([agent.success_rate], [i], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(ordered)), [_shorter(agent.name) for agent in ordered])
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(ordered) - 0.4), xlabel="success rate, 95 % interval")
        axes.grid(axis="y", visible=False)
    return figure.svg


def lengths(agents: Sequence[Judged]) -> Markup | None:
    """The share of episodes solved within t env steps: a distribution of lengths that failures belong to as well."""
    agents = [agent for agent in agents if agent.episodes]
    if not agents:
        return None
    with _figure("Solved within t steps") as (figure, axes):
        longest = max(episode.length for agent in agents for episode in agent.episodes)
        for i, agent in enumerate(agents):
            solved = np.sort([episode.length for episode in agent.episodes if episode.success])
            steps = [0, *solved, longest]
            shares = [0.0, *(np.arange(1, len(solved) + 1) / len(agent.episodes)), len(solved) / len(agent.episodes)]
            axes.step(steps, shares, where="post", color=COLOURS[i % len(COLOURS)], label=_shorter(agent.name))
        axes.set(xlabel="env steps t", ylabel="share of episodes", ylim=(-0.03, 1.03), xlim=(0, None))
        _legend(axes)
    return figure.svg


def length_histogram(groups: Sequence[tuple[str, Sequence[int]]], unit: str) -> Markup:
    """How many episodes are how long."""
    with _figure("Episode lengths") as (figure, axes):
        every = [length for _, values in groups for length in values]
        bins = np.histogram_bin_edges(every, bins=24).tolist()
        for i, (name, values) in enumerate(groups):
            colour = COLOURS[i % len(COLOURS)]
            if len(groups) > 1:  # an outline too: where two overlap, each is seen
                axes.hist(values, bins, histtype="step", color=colour, linewidth=1.4)
            axes.hist(values, bins, color=colour, alpha=0.25 if len(groups) > 1 else 0.55, label=_shorter(name))
        axes.set(xlabel="env steps", ylabel=unit)
        if len(groups) > 1:
            _legend(axes)
    return figure.svg


def initial_states(agent: Judged, all_agents: Sequence[Judged]) -> Markup | None:
    """From above, where the object lay and how it was turned when an episode began, by outcome; None: not recorded.

    Args:
        agent: whose episodes.
        all_agents: give the axes their range, so that pictures of several agents compare.
    """
    placed = [(episode, episode.object) for episode in agent.episodes if episode.object is not None]
    every = np.array([e.object for each in all_agents for e in each.episodes if e.object is not None])
    if not placed:
        return None
    with _figure(f"Where the object lay: {_shorter(agent.name)}", width=3.9, height=3.6) as (figure, axes):
        low, high = 100 * every[:, :2].min(axis=0), 100 * every[:, :2].max(axis=0)
        half = max(*(high - low), 2.0) / 2 * 1.18
        tick = half / 14
        for good, colour, marker, name in ((True, GOOD, "o", "success"), (False, BAD, "X", "failure")):
            points = np.array([place for episode, place in placed if episode.success == good]).reshape(-1, 3)
            x, y, yaw = 100 * points[:, 0], 100 * points[:, 1], points[:, 2]
            axes.plot(
                np.stack([y, y + tick * np.sin(yaw)]), np.stack([x, x + tick * np.cos(yaw)]), color=colour, linewidth=1
            )
            label = f"{name} ({len(points)})"
            axes.scatter(y, x, s=26 if good else 38, color=colour, marker=marker, linewidths=0, alpha=0.85, label=label)
        middle = (low + high) / 2
        axes.set(
            xlim=(middle[1] + half, middle[1] - half),
            ylim=(middle[0] - half, middle[0] + half),
            xlabel="y in cm: the robot's left is left",
            ylabel="x in cm, away from the robot",
            aspect="equal",
        )
        _legend(axes, columns=2)
    return figure.svg


def hand_ways(ways: Sequence[np.ndarray], title: str) -> Markup:
    """The hand's way (T, 2), x and y in m, in each demonstration, from above."""
    with _figure(title, width=3.9, height=3.6) as (figure, axes):
        for way in ways:
            thinned = way[:: max(1, len(way) // 60)]
            axes.plot(
                thinned[:, 1], thinned[:, 0], color=COLOURS[0], linewidth=0.7, alpha=max(0.12, 3 / (len(ways) + 3))
            )
        begins, ends = np.array([way[0] for way in ways]), np.array([way[-1] for way in ways])
        axes.scatter(begins[:, 1], begins[:, 0], s=9, color=INK, linewidths=0, zorder=3)
        axes.scatter(ends[:, 1], ends[:, 0], s=13, facecolors="none", edgecolors=COLOURS[1], linewidths=0.8, zorder=3)
        axes.set(xlabel="y in m: the robot's left is left", ylabel="x in m, away from the robot")
        axes.set_aspect("equal", adjustable="datalim")
        axes.invert_xaxis()
    return figure.svg


def metric(
    title: str, rows: Sequence[Row], series: Sequence[tuple[str, str]], step_name: str, log: bool = False
) -> Markup | None:
    """Logged values against steps; ``series`` are (name in the rows, label). None: none of them was logged."""
    there = [(name, label) for name, label in series if any(name in row for row in rows)]
    if not there:
        return None
    with _figure(title) as (figure, axes):
        for i, (name, label) in enumerate(there):
            points = np.array([(row["step"], row[name]) for row in rows if name in row])
            marker = "o" if len(points) < 40 else None
            axes.plot(points[:, 0], points[:, 1], color=COLOURS[i], marker=marker, markersize=2.5, label=label)
        values = [row[name] for name, _ in there for row in rows if name in row]
        if log and min(values) > 0 and max(values) > 30 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlabel=step_name)
        _thousands(axes)
        _legend(axes)
    return figure.svg


def kl(run: Run) -> Markup | None:
    """The actor's distance from its prior against the target that the learner aims at; None: it has none."""
    points = [(row["step"], row["train/penalty"]) for row in run.rows if "train/penalty" in row]
    if not points or not run.kl_target:
        return None
    with _figure("KL to the prior") as (figure, axes):
        axes.plot(*zip(*points, strict=True), color=COLOURS[0], marker="o", markersize=2.5, label="actor")
        axes.plot(*zip(*run.kl_target, strict=True), color=MUTED, linestyle="--", linewidth=1.2, label="target")
        axes.set(xlabel=run.step_name, ylabel="nats per chunk", ylim=(0, None))
        _thousands(axes)
        _legend(axes)
    return figure.svg


class _Drawing:
    """A figure, and its SVG once it is finished."""

    svg: Markup


@contextmanager
def _figure(
    title: str, width: float = WIDTH, height: float = HEIGHT, fit: bool = False
) -> Iterator[tuple[_Drawing, Axes]]:
    drawing = _Drawing()
    with mpl.rc_context(STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        yield drawing, axes
        drawing.svg = to_svg(figure, title)


def to_svg(figure: Figure, title: str) -> Markup:
    """A figure as an SVG element that takes its container's width; ``title`` is for those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # Names of matplotlib's parts, the same in every figure; what is referred to has longer ones.
    text = re.sub(r' id="[a-zA-Z0-9]+_\d+"', "", text)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', text, count=1)
    return Markup(text.replace('role="img">', f'role="img"><title>{Markup.escape(title)}</title>', 1))


def _legend(axes: Axes, columns: int = 1) -> None:
    if len(axes.get_legend_handles_labels()[1]) == 1:
        return  # the title says it
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.4)


def _thousands(axes: Axes) -> None:
    axes.locator_params(axis="x", nbins=6)
    if axes.get_xlim()[1] >= 10_000:
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")


def _shorter(name: str) -> str:
    return name.replace("base, ", "").replace("N(0, I) cut at the magnitude", "N(0, I), cut")
