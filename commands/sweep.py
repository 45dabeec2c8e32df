"""`sweep`: many runs as one command."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.number_types import NonNegativeInt
from sweeps.plan import PlannedRun, Step, Value, grid_points, plan

if TYPE_CHECKING:
    from rich.table import Table


def sweep(
    steps: dict[str, Step],
    output: Path,
    grid: dict[str, list[Value]] | None = None,
    points: list[dict[str, Value]] | None = None,
    only: dict[str, list[Value]] | None = None,
    extra: dict[str, str] | None = None,
    retries: NonNegativeInt = 3,
    dry_run: bool = False,
) -> None:
    """Run command lines for every combination of values, on this machine's cores or a Ray cluster (RAY_ADDRESS).

    Started again, it goes on: what is finished stays, and what was interrupted resumes.

    Args:
        steps: by name, in order: the line of a command with placeholders, and the cpus and gpus of a run.
        output: folder of the sweep: a folder for every run, runs.csv, table.csv.
        grid: values by the name of their placeholder; each with each of the others.
        points: values that belong together, as a list; each with each combination of the grid.
        only: values by name: runs of other values are left for another time or machine.
        extra: words to append to the lines of steps, by the step's name.
        retries: further attempts at a run that died.
        dry_run: print the lines, and run nothing.
    """
    every = plan(steps, grid_points(grid or {}, points or [], {}), output, extra)
    runs = plan(steps, grid_points(grid or {}, points or [], only or {}), output, extra)
    if not runs:
        raise UserError("the sweep has no run: a list of grid or only is empty")
    if dry_run:
        for run in runs.values():
            print(run.line)
        return
    settings = {"steps": {name: step.run for name, step in steps.items()}, "grid": grid, "points": points}
    _play(every, runs, output, retries, {**settings, "only": only, "extra": extra})


def _play(
    every: dict[str, PlannedRun], runs: dict[str, PlannedRun], output: Path, retries: int, settings: dict[str, object]
) -> None:
    """Play ``runs``; the tables are of all that is finished among ``every`` one, whoever played it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from common.lock import run_lock
    from common.provenance import FILE, read_provenance, write_provenance
    from sweeps.attempt import LOG, is_finished, last_words
    from sweeps.cluster import State, play, states_at_start

    console = Console(highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with run_lock(output):
        known = output / FILE
        if known.is_file():
            before = read_provenance(known)
            if before is None:
                raise UserError(
                    f"{known} cannot be read, so whether {output} holds a sweep is not known: delete the file if it "
                    "does, or give the sweep another --output."
                )
            if "steps" not in before["changed"]:
                raise UserError(f"{output} holds a run that is no sweep: give the sweep another --output.")
        states_at_start(runs)  # refuses, before anything is written
        write_provenance(output, settings, goes_on=known.is_file())
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("runs", total=len(runs))

            def tell(run: PlannedRun, state: State, why: str) -> None:
                progress.advance(bar, state in ("finished", "failed", "skipped"))
                console.print(f"{time.strftime('%H:%M:%S')} {state:<8} {run.name}{why and f' ({why})'}", markup=False)

            states = play(runs, retries, tell)
        _say_results([run for run in every.values() if is_finished(run)], output, console)
    if failed := [runs[name] for name, state in states.items() if state == "failed"]:
        counts = Counter(states.values())
        said = "\n".join(f"  {run.folder / LOG}: {last_words(run)}" for run in failed)
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed and {counts['skipped']} were skipped; started again, the sweep "
            f"tries them anew; a run whose folder is deleted begins from nothing. Their last words:\n{said}"
        )


def _say_results(finished: list[PlannedRun], output: Path, console: object) -> None:
    """Write both tables, print the second."""
    import shlex

    from rich.console import Console

    from sweeps.table import RUNS, TABLE, rows_of_runs, table_of, write_csv

    assert isinstance(console, Console)
    rows = rows_of_runs(finished)
    if rows:
        table = table_of(rows)
        write_csv(output / RUNS, rows)
        write_csv(output / TABLE, table)
        console.print(_shown(table), soft_wrap=False)  # as wide as the terminal
        print(f"wrote {output / RUNS} and {output / TABLE}")
    print(f"next, look at every curve: tensorboard --logdir {shlex.quote(str(output))}")


def _shown(rows: list[dict[str, Any]]) -> "Table":
    """What fits a terminal of the table that was written: rates as .865, an interval in one column."""
    from rich.box import SIMPLE
    from rich.table import Table

    def rate(value: float) -> str:
        return f"{value:.3f}".removeprefix("0")

    intervals = {"low": "95 %, episodes", "seeds_low": "95 %, seeds"}
    left_out = ("high", "seeds_high", "episodes", "seconds")
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in left_out]
    heads = (intervals.get(name, name.replace("_", " ")) for name in names)
    shown = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for head in heads:
        shown.add_column(head, overflow="fold")
    for row in rows:
        cells = []
        for name in names:
            value = row.get(name, "")
            if name in intervals and value != "":
                value = f"{rate(value)} to {rate(row[name.replace('low', 'high')])}"
            cells.append(rate(value) if name == "success" else str(value))
        shown.add_row(*cells)
    return shown
