"""A sweep file as runs: the command line of each, its folder, and which others it waits for."""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import yaml

from common.errors import UserError
from common.number_types import NonNegativeFloat, PositiveInt

Value = int | float | str
Point = dict[str, Value]

# What a command makes, in the folder of its run. Those that are given a folder as --output come first.
INTO_FOLDER = {"fit": "policy.safetensors", "dsrl": "sac_best.zip"}
PRODUCTS = {
    **INTO_FOLDER,
    "collect": "demonstrations.hdf5",
    "download": "demonstrations.hdf5",
    "convert": "demonstrations.hdf5",
    "export": "policy.safetensors",
    "evaluate": "results.json",
}
NOT_IN_NAMES = re.compile(r"[^\w.+-]")  # of folders
# Columns of the sweep's tables that are measured: what differs between the seeds of a row.
MEASURED = (
    "run",
    "selected",
    "episodes",
    "success",
    "low",
    "high",
    "mean_length",
    "seconds",
    "attempts",
    "sha256",
    "commit",
)


@dataclass(frozen=True)
class Step:
    """A command line with placeholders, and what each of its runs needs.

    Args:
        run: the line after ``python cli.py``, without --output. ``{task}`` stands for a value of the grid or of a
            point, ``{bc}`` for what the earlier step ``bc`` made, ``{folder}`` for the run's own folder, ``{{`` for a
            brace.
        cpus: CPUs of a run.
        gpus: GPUs of a run; .5: two runs share one.
    """

    run: str
    cpus: PositiveInt = 1
    gpus: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class PlannedRun:
    """One command line of a sweep.

    Args:
        name: the step's, and the point's values that matter to it.
        step: which it belongs to.
        words: the line after ``python cli.py``.
        folder: everything of the run is in it.
        point: the values that the line or one that it waits for mentions.
        after: names of the runs that come first.
        cpus: it gets.
        gpus: it gets.
    """

    name: str
    step: str
    words: tuple[str, ...]
    folder: Path
    point: Point
    after: tuple[str, ...]
    cpus: int
    gpus: float

    @property
    def command(self) -> str:
        """Which of the project's."""
        return self.words[0]

    @property
    def product(self) -> Path:
        """What the run is for."""
        return self.folder / PRODUCTS[self.command]

    @property
    def line(self) -> str:
        """As a person would type it."""
        return shlex.join(["python", "cli.py", *self.words])


def plan(
    steps: Mapping[str, Step],
    points: Sequence[Point],
    output: Path,
    extra: Mapping[str, str] | None = None,
) -> dict[str, PlannedRun]:
    """The runs of every step, those that are waited for first, by name.

    A step is run once for each combination of the values that it mentions, itself or through the steps before it: data
    that do not depend on the seed are collected once for all seeds.

    Args:
        steps: by name, in order: a step mentions earlier ones.
        points: combinations of values, see ``grid_points``.
        output: folder of the sweep.
        extra: words to append to the lines of steps, by their names.

    Raises:
        UserError: a line that cannot be understood.
    """
    _check_names(steps, points, extra or {})
    needs: dict[str, set[str]] = {}  # step -> values that it depends on
    runs: dict[str, PlannedRun] = {}
    for name, step in steps.items():
        words = _words(name, step.run, (extra or {}).get(name, ""))
        mentioned = {field for word in words for field in _fields(name, word)} - {"folder"}
        before = sorted(mentioned & needs.keys())
        needs[name] = (mentioned - set(before)).union(*(needs[other] for other in before))
        for point in points:
            if unknown := sorted(needs[name] - point.keys()):
                steps_before = ", ".join(other for other in needs if other != name) or "none"
                raise UserError(
                    f"steps.{name}: {{{unknown[0]}}} is neither an earlier step ({steps_before}) nor a "
                    f"value of grid or points ({', '.join(point) or 'none'})"
                )
            own = {key: value for key, value in point.items() if key in needs[name]}
            run_name = _name(name, own)
            if (known := runs.get(run_name)) is not None:
                if known.point != own:
                    raise UserError(f"steps.{name}: {known.point} and {own} would share the folder {run_name}")
                continue
            earlier = [runs[_name(other, {k: point[k] for k in point if k in needs[other]})] for other in before]
            made = {run.step: str(run.product) for run in earlier}
            folder = output / run_name
            filled = [word.format_map({**own, **made, "folder": str(folder)}) for word in words]
            runs[run_name] = PlannedRun(
                name=run_name,
                step=name,
                words=(*filled, *_output_words(filled, folder)),
                folder=folder,
                point=own,
                after=tuple(run.name for run in earlier),
                cpus=step.cpus,
                gpus=step.gpus,
            )
    return runs


def grid_points(
    grid: Mapping[str, Sequence[Value]], points: Sequence[Point], only: Mapping[str, Sequence[Value]]
) -> list[Point]:
    """Each of ``points`` with each combination of the values of ``grid``; of these, those that ``only`` lets through.

    Raises:
        UserError: ``only`` names no known value.
    """
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    every = [{**point, **values} for point in (points or [{}]) for values in combinations]
    for name, wanted in only.items():
        there = list(dict.fromkeys(point.get(name) for point in every))
        if missing := [value for value in wanted if value not in there]:
            raise UserError(f"only.{name}: {missing[0]!r} is not among the sweep's values: {there}")
        every = [point for point in every if point.get(name) in wanted]
    return every


def _check_names(steps: Mapping[str, Step], points: Sequence[Point], extra: Mapping[str, str]) -> None:
    if not steps:
        raise UserError(
            "steps is empty: expected at least one, such as  data: {run: collect --task lift --n_demos 200}"
        )
    values = {key for point in points for key in point}
    for name in (*steps, *values):
        if not name.isidentifier() or name == "folder":
            raise UserError(f"{name!r} cannot be the name of a step or value: expected letters, digits and _")
    if columns := sorted(values & {*MEASURED, "step", "agent", "seeds"}):
        raise UserError(f"{columns[0]!r} is a column of the sweep's tables: give the value another name")
    if both := sorted(values & steps.keys()):
        raise UserError(f"{both[0]!r} is the name of a step and of a value: rename one of them")
    if unknown := sorted(extra.keys() - steps.keys()):
        raise UserError(f"extra.{unknown[0]}: expected the name of a step, one of {', '.join(steps)}")


def _words(name: str, line: str, extra: str) -> list[str]:
    try:
        words = [*shlex.split(line), *shlex.split(extra)]
    except ValueError as error:
        raise UserError(f"steps.{name}: {line!r} is no command line: {error}") from error
    if not words or words[0] not in PRODUCTS:
        found = repr(words[0]) if words else "nothing"
        raise UserError(f"steps.{name}: the line begins with {found}: expected one of {', '.join(PRODUCTS)}")
    taken = {"--output", "--best.dirpath", "--resume", "--ckpt_path"} if words[0] in INTO_FOLDER else {"--output"}
    if given := sorted(taken & {word.partition("=")[0] for word in words}):
        raise UserError(f"steps.{name} gives {given[0]}: leave it out, the sweep gives each run its own")
    return words


def _fields(name: str, word: str) -> Iterator[str]:
    """The placeholders of a word."""
    try:
        for _, field, spec, conversion in Formatter().parse(word):
            if field is not None and (not field.isidentifier() or spec or conversion):
                raise ValueError(f"found {{{field}}}")
            if field is not None:
                yield field
    except ValueError as error:
        raise UserError(
            f"steps.{name}: {word!r}: {error}. Expected placeholders like {{task}}; a brace itself is {{{{ or }}}}"
        ) from error


def _name(step: str, point: Point) -> str:
    if not point:
        return step
    return f"{step}/" + ",".join(f"{key}={_short(value)}" for key, value in point.items())


def _short(value: Value) -> str:
    """A value as a part of a folder's name: of a path its last part."""
    return re.sub(NOT_IN_NAMES, "_", str(value).rpartition("/")[2])


def _output_words(words: Sequence[str], folder: Path) -> list[str]:
    """Where the run writes to, its curves included: `fit` logs them elsewhere unless it is told."""
    if words[0] not in INTO_FOLDER:
        return ["--output", str(folder / PRODUCTS[words[0]])]
    curves = words[0] == "fit" and not _has_logger(words)
    return ["--output", str(folder), *(["--trainer.logger.init_args.save_dir", str(folder)] if curves else [])]


def _has_logger(words: Sequence[str]) -> bool:
    """Whether the line or a config of it chooses a logger, or none: its curves go where that one puts them."""
    if any(word.startswith("--trainer.logger") for word in words):
        return True
    for path in configs_of(words):
        content = yaml.safe_load(path.read_text())
        trainer = content.get("trainer") if isinstance(content, dict) else None
        logger = trainer.get("logger", {}) if isinstance(trainer, dict) else {}
        if not isinstance(logger, dict) or "class_path" in logger:
            return True
    return False


def configs_of(words: Sequence[str]) -> list[Path]:
    """The configs that a line names and that are there."""
    paths = (Path(word.partition("=")[2] if word.startswith("--config=") else word) for word in words)
    return [path for path in paths if path.suffix in (".yaml", ".yml") and path.is_file()]
