"""What a data set holds, for people: counts, lengths, ranges, masks, success, notes and problems."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.controllers import are_absolute
from datamodules.conventions import are_shaped
from datamodules.hdf5 import DatasetFile, clipping_note

# `fit` and `dsrl` read no next_obs: where it is wrong, the file still serves.
READ_BY_COMMANDS = ("states", "rewards", "dones")


@dataclass(frozen=True)
class Span:
    """The values of one array over all demonstrations."""

    dim: int
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """All that `inspect` prints; ``problems`` make the file unusable, ``notes`` are tolerated."""

    facts: dict[str, str]
    spans: dict[str, Span]
    masks: dict[str, tuple[int, int]]  # filter key -> demonstrations named, of these in the file
    notes: list[str]
    problems: list[str]


def survey(path: Path) -> Report:
    """Read a whole file, one demonstration at a time.

    Raises:
        UserError: the file cannot be opened as a data set at all.
    """
    with DatasetFile(path) as file:
        lengths: list[int] = []
        rewards: list[np.ndarray] = []
        spans: dict[str, Span] = {}
        notes, problems = file.notes(), []
        n_clipped = n_actions = 0
        for name in file.names():
            demonstration, faults = file.examine(name, fields=READ_BY_COMMANDS)
            problems += faults
            notes += [f"{fault} No command reads it." for fault in file.faults_of_next_obs(name)]
            lengths.append(len(demonstration))
            n_clipped, n_actions = n_clipped + demonstration.n_clipped, n_actions + demonstration.actions.size
            if len(demonstration.rewards):
                rewards.append(demonstration.rewards)
            arrays = {"actions": demonstration.actions, "states": demonstration.states}
            arrays |= {f"obs/{key}": values for key, values in demonstration.obs.items()}
            for key, values in arrays.items():
                if values.size:
                    spans[key] = _widened(spans.get(key), values)
        env_args = file.env_args or {}
        facts = {
            "file": f"{path} ({path.stat().st_size / 1e6:.1f} MB, sha256 {file.sha256[:12]}...)",
            "source": file.attributes.get("source", "not stated"),
            "task": env_args.get("env_name", "not stated (no env_args)"),
            "simulator": f"robosuite {env_args['env_version']}" if "env_version" in env_args else "not stated",
            "actions": "absolute poses" if are_absolute(env_args) else "motions, in [-1, 1]",
            "demonstrations": str(len(lengths)),
            "transitions": f"{sum(lengths)} (header: {file.attributes.get('total', 'not stated')})",
            "lengths": f"mean {np.mean(lengths):.1f}, median {np.median(lengths):g}, {min(lengths)} to {max(lengths)}",
            "success": _success(env_args, rewards),
        }
        masks = {key: (len(named), len(named) - file.absent(key)) for key, named in file.masks.items()}
        if note := clipping_note(n_clipped, n_actions):
            notes.append(note)
        return Report(facts, spans, masks, notes, problems)


def _success(env_args: dict[str, Any], rewards: Sequence[np.ndarray]) -> str:
    if not rewards:
        return "not stated (no rewards)"
    if are_shaped(env_args, rewards):
        return "not stated (shaped rewards, which also pay for coming nearer)"
    return f"{np.mean([array.max() > 0 for array in rewards]):.1%} of {len(rewards)} with rewards"


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the report as tables."""
    console = console or Console()
    console.print(_table(("", ""), report.facts.items()))
    rows = ((key, str(span.dim), f"{span.low:.4g}", f"{span.high:.4g}") for key, span in report.spans.items())
    console.print(_table(("array", "dims", "smallest", "largest"), rows))
    if report.masks:
        rows_of_masks = ((key, str(named), str(there)) for key, (named, there) in report.masks.items())
        console.print(_table(("filter key", "demonstrations named", "of these in the file"), rows_of_masks))
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    for problem in report.problems:
        console.print(f"problem: {problem}", style="red", markup=False, highlight=False)
    console.print(f"{len(report.problems)} problems" if report.problems else "no problems found")


def _widened(span: Span | None, values: np.ndarray) -> Span:
    low, high = float(np.min(values)), float(np.max(values))
    if span is None:
        return Span(values.shape[1], low, high)
    return Span(span.dim, min(span.low, low), max(span.high, high))


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(*columns, show_header=any(columns), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))  # a file's own words are no markup
    return table
