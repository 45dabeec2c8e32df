"""What the files of a run hold: the folder of `dsrl` or `fit`, or a results file of `evaluate`. Light to import."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from common.errors import UserError
from common.metrics_file import FILE as METRICS
from common.metrics_file import read_rows
from common.provenance import FILE as PROVENANCE
from common.provenance import read_provenance

Row = dict[str, float]
Kind = Literal["dsrl", "fit", "evaluate"]
BASE = "base, w ~ N(0, I)"  # as dsrl.baselines calls it


@dataclass(frozen=True)
class Episode:
    """One episode of an evaluation."""

    success: bool
    length: int  # env steps
    object: tuple[float, float, float] | None  # where it lay at first: x, y (m), yaw (rad)


@dataclass(frozen=True)
class Judged:
    """An agent's success, and its episodes where the file keeps them."""

    name: str
    success_rate: float
    ci95: tuple[float, float]
    mean_length: float  # env steps, failures at the horizon included
    n_episodes: int
    episodes: list[Episode]


@dataclass(frozen=True)
class Curve:
    """Success at several steps, each on ``n`` episodes; 0: on a changing number, so that it has no interval."""

    name: str
    points: list[tuple[float, float]]  # (step, success rate)
    n: int


@dataclass(frozen=True)
class Run:
    """One run, as a page shows it; what its files do not hold is empty.

    Args:
        path: as the user gave it.
        kind: which command made it.
        task: as its files call it.
        agents: the agents judged, on the same episodes; the base policy is first.
        chosen: which of them the run is about, by name; None: none was judged.
        curves: success against ``step_name``.
        rows: the metrics as they were logged, each with ``step``.
        kl_target: (step, KL in nats) of the target that the learner aims at.
        changed: settings that differ from their defaults; of a run without provenance all its settings.
        starts: command, time, commit, versions and hardware of each start.
        seconds: wall-clock by part.
        notes: further facts.
    """

    path: Path
    kind: Kind
    task: str | None
    agents: list[Judged] = field(default_factory=list)
    chosen: str | None = None
    step_name: str = "env steps"
    curves: list[Curve] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    kl_target: list[tuple[float, float]] = field(default_factory=list)
    changed: dict[str, Any] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> Judged | None:
        """The agent that the run is about."""
        return next((agent for agent in self.agents if agent.name == self.chosen), None)

    @property
    def videos(self) -> list[Path]:
        """Those of the run."""
        return sorted(video_folder(self.path).glob("*.mp4"))

    @property
    def base(self) -> Judged | None:
        """The agent to compare it with, where it is another one."""
        first = self.agents[0] if self.agents else None
        return first if first is not self.judged else None


def video_folder(path: Path) -> Path:
    """Where the videos of a run are: ``videos`` in its folder, ``NAME_videos`` beside the results file NAME.json."""
    return path.with_name(f"{path.stem}_videos") if path.suffix == ".json" else path / "videos"


def read_run(path: Path) -> Run:
    """Read the folder of `dsrl` or `fit`, or a results file of `evaluate`.

    Raises:
        UserError: it is none of these, or damaged.
    """
    reader: Callable[[Path], Run]
    if path.is_file() and path.suffix == ".json":
        reader = _read_results
    elif (path / "metrics.csv").is_file() and (path / "config.yaml").is_file():
        reader = _read_dsrl
    elif (path / METRICS).is_file() and (path / "config.yaml").is_file():
        reader = _read_fit
    elif (path / "last.ckpt").is_file():
        raise UserError(f"--run {path}: a run of `fit` from before it wrote metrics.jsonl; see `plot` for its curves")
    else:
        there = "there is no such path" if not path.exists() else "it is none of these"
        raise UserError(
            f"--run {path}: {there}. Expected the folder of a `dsrl` or `fit` run (config.yaml and metrics.csv or "
            "metrics.jsonl), or a results file of `evaluate --output` (.json)"
        )
    try:
        return reader(path)
    except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"--run {path}: damaged, or not written by this project ({error!r})") from error


def _read_dsrl(folder: Path) -> Run:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if k and v not in (None, "")} for row in csv.DictReader(file)]
    for row in rows:
        row["step"] = row["env_steps"]
    n = config["evaluation"]["episodes"]
    curves = [
        Curve("evaluation, actor's mean", _points(rows, "eval/deterministic_success"), n),
        Curve("evaluation, actor's draw", _points(rows, "eval/stochastic_success"), n),
        Curve("training, last 50 episodes", _points(rows, "rollout/success"), 0),
    ]
    agents, chosen, seconds = [], None, _seconds(rows)
    if (folder / "report.json").is_file():
        report = _object(folder / "report.json")
        agents = [_judged(name, values) for name, values in report["agents"].items()]
        agents.sort(key=lambda agent: agent.name != BASE)
        chosen = f"steered, actor's {report['selected']}"
        if "wall_clock_seconds" in report:
            seconds["final report"] = report["wall_clock_seconds"]
    learner = config["learner"]
    warm, opening = config["initial_steps"], learner.get("kl_open_steps", 0)
    target: list[tuple[float, float]] = []
    if "kl_target" in learner and rows:
        goal = learner["kl_target"]
        target = [(warm, 0.0 if opening else goal), (warm + opening, goal), (rows[-1]["step"], goal)]
    notes = {"base policy": config["bc_checkpoint"], "learner": learner["algorithm"]}
    changed, starts = _provenance(folder, config)
    return Run(
        path=folder,
        kind="dsrl",
        task=config["task"],
        agents=agents,
        chosen=chosen,
        curves=[curve for curve in curves if curve.points],
        rows=rows,
        kl_target=[point for point in target if not rows or point[0] <= rows[-1]["step"]],
        changed=changed,
        starts=starts,
        seconds=seconds,
        notes=notes,
    )


def _read_fit(folder: Path) -> Run:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    rows: list[Row] = read_rows(folder / METRICS)
    curve = Curve("rollouts", _points(rows, "rollout/success_rate"), config["rollout"]["n_episodes"])
    changed, starts = _provenance(folder, config)
    return Run(
        path=folder,
        kind="fit",
        task=config["data"]["task"],
        step_name="updates",
        curves=[curve] if curve.points else [],
        rows=rows,
        changed=changed,
        starts=starts,
        seconds=_seconds(rows),
        notes={"data": str(config["data"]["path"])},
    )


def _read_results(path: Path) -> Run:
    results = _object(path)
    steered = results["sac"] is not None
    chosen = "steered" if steered else "base"
    documents = {**({"base": results["base"]} if "base" in results else {}), chosen: results}
    notes = {"checkpoint": f"{results['checkpoint']['path']} (sha256 {results['checkpoint']['sha256'][:12]}...)"}
    if steered:
        notes["steered by"] = f"{results['sac']['path']} (sha256 {results['sac']['sha256'][:12]}...)"
    for key in ("actor", "ddim_steps", "noise_scale", "horizon", "seed"):
        if results.get(key) is not None:
            notes[key.replace("_", " ").replace("ddim", "DDIM")] = str(results[key])
    facts = ("command", "begun", "commit", "versions", "hardware")
    start: dict[str, Any] = {key: results[key] for key in facts if key in results}
    return Run(
        path=path,
        kind="evaluate",
        task=results["task"],
        agents=[_judged(name, values) for name, values in documents.items()],
        chosen=chosen,
        starts=[start] if start else [],
        seconds={name: values["wall_clock_seconds"] for name, values in documents.items()},
        notes=notes,
    )


def _judged(name: str, values: Mapping[str, Any]) -> Judged:
    low, high = values["ci95"]
    episodes = [
        Episode(bool(each["success"]), int(each["length"]), tuple(each["object"]) if each.get("object") else None)
        for each in values.get("episodes", [])
    ]
    return Judged(name, values["success_rate"], (low, high), values["mean_length"], values["n_episodes"], episodes)


def _provenance(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if not (folder / PROVENANCE).is_file():
        return dict(config), []
    document = read_provenance(folder / PROVENANCE)
    if document is None:  # the page is about the run: it does not depend on where that was started
        return dict(config), []
    return document["changed"], document["starts"]


def _seconds(rows: list[Row]) -> dict[str, float]:
    """Wall-clock by part as the last row has it, what is in no part as ``other``."""
    last = rows[-1] if rows else {}
    parts = {key[5:-2]: value for key, value in last.items() if key.startswith("time/") and key.endswith("_s")}
    parts.pop("env_steps_per", None)
    parts.pop("updates_per", None)
    whole = parts.pop("wall", 0.0)
    parts["other"] = max(0.0, whole - sum(parts.values()))
    return {name: value for name, value in parts.items() if value > 0}


def _points(rows: list[Row], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


def _object(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return values
