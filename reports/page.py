"""A run, or several side by side, as one HTML file that needs no network."""

import base64
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from common.files import atomic_path
from reports.run_files import Judged, Run, read_run


class Plot(NamedTuple):
    """A figure and what one sees in it."""

    title: str
    svg: Markup
    caption: str


class Clip(NamedTuple):
    """A video, with its bytes in the page."""

    caption: str
    source: str


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "interval": _interval,
        "duration": _duration,
        "setting": _setting,
        "lines": _lines,
    }
    return environment


def write_run_page(paths: Sequence[Path], output: Path) -> None:
    """Write a page about the runs at ``paths``: folders of `dsrl` or `fit`, or results files.

    Raises:
        UserError: a path is none of these, or the page cannot be written.
    """
    runs = [read_run(path) for path in paths]
    write_page(
        "runs.html.j2",
        output,
        title=" and ".join(run.path.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        runs=[(run, _plots(run), [_clip(path) for path in run.videos]) for run in runs],
        together=_together(runs) if len(runs) > 1 else [],
    )


def write_page(template: str, output: Path, **values: Any) -> None:
    """Fill a template of this package and write it; the page appears whole or not at all."""
    text = _environment().get_template(template).render(**values)
    with atomic_path(output) as partial:
        partial.write_text(text, encoding="utf-8")


def picture_source(kind: str, content: bytes) -> str:
    """A picture's or video's bytes as the ``src`` of its element."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _plots(run: Run) -> list[Plot]:
    from reports import figures

    shown = list(_both(run))
    lengths = [(agent.name, [e.length for e in agent.episodes if e.success]) for agent in shown if agent.episodes]
    lengths = [(name, values) for name, values in lengths if values]
    training = [("train/loss", "training"), ("val/loss", "validation")]
    return list(
        _drawn(
            (
                f"Success against {run.step_name}",
                figures.success_curves([run]),
                "Bands: Wilson's 95 % interval." + (" Dashed: the base policy." if run.base else ""),
            ),
            (
                "Baselines",
                figures.baselines(run.agents, run.chosen) if len(run.agents) > 1 else None,
                "All on the same initial states.",
            ),
            ("Solved within t steps", figures.lengths(shown), "Where a curve ends is the success rate."),
            (
                "Lengths of the successes",
                figures.length_histogram(lengths, "episodes") if lengths else None,
                "Failures, which last to the horizon, are left out.",
            ),
            *(
                (
                    f"Initial states: {agent.name}",
                    figures.initial_states(agent, shown),
                    "From above; the tick says how the object was turned.",
                )
                for agent in shown
            ),
            ("Loss", figures.metric("Loss", run.rows, training, run.step_name, log=True), "Mean over an epoch."),
            (
                "Learning rate",
                figures.metric("Learning rate", run.rows, [("train/lr", "learning rate")], run.step_name),
                "At the end of each epoch.",
            ),
            (
                "Gradient norm",
                figures.metric("Gradient norm", run.rows, [("train/grad_norm", "norm")], run.step_name, log=True),
                "Over all weights, before clipping, at the last step of each epoch.",
            ),
            (
                "Critic's loss",
                figures.metric("Critic's loss", run.rows, [("train/critic_loss", "critic")], run.step_name, log=True),
                "Half the squared TD error, summed over the critics: mean over the minibatch.",
            ),
            (
                "Values",
                figures.metric(
                    "Values", run.rows, [("train/q_pi", "of the actor"), ("train/q_data", "of the data")], run.step_name
                ),
                "Q as the critics have it. The actor's far above the data's would be overestimation.",
            ),
            (
                "KL to the prior",
                figures.kl(run),
                "The coefficient rises where it lies above the target, and falls below.",
            ),
            (
                "Coefficient",
                figures.metric("Coefficient", run.rows, [("train/ent_coef", "coefficient")], run.step_name, log=True),
                "Weight of the KL or entropy term in the actor's loss.",
            ),
        )
    )


def _together(runs: Sequence[Run]) -> list[Plot]:
    from reports import figures

    judged = [
        Judged(f"{run.path.name}: {agent.name}", *list(vars(agent).values())[1:])
        for run in runs
        for agent in _both(run)
    ]
    same_steps = [[run for run in runs if run.step_name == name and run.curves] for name in ("env steps", "updates")]
    return list(
        _drawn(
            *(
                (f"Success against {group[0].step_name}", figures.success_curves(group), "Bands: 95 % interval.")
                for group in same_steps
                if group
            ),
            (
                "Success of each run",
                figures.baselines(judged, None) if judged else None,
                "Compare runs only where task, seed and horizon are the same.",
            ),
            ("Solved within t steps", figures.lengths(judged), "Where a curve ends is the success rate."),
        )
    )


def _both(run: Run) -> Iterable[Judged]:
    return (agent for agent in (run.base, run.judged) if agent is not None)


def _drawn(*plots: tuple[str, Markup | None, str]) -> Iterable[Plot]:
    return (Plot(title, svg, caption) for title, svg, caption in plots if svg is not None)


def _clip(path: Path) -> Clip:
    return Clip(path.stem.replace("_", " ").capitalize(), picture_source("video/mp4", path.read_bytes()))


def _lines(command: str) -> str:
    """A command line with each flag on a line of its own, as a shell takes it."""
    return command.replace(" --", " \\\n    --")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _interval(ends: tuple[float, float]) -> str:
    # The parts stay on one line.
    return f"{100 * ends[0]:.1f}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{100 * ends[1]:.1f}\N{NO-BREAK SPACE}%"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{round(seconds) // 60}:{round(seconds) % 60:02d}\N{NO-BREAK SPACE}min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _setting(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
