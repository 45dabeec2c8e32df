"""The results of a sweep: one row per run and agent, and their means over seeds with two intervals."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import atomic_path, sha256_of
from reports.run_files import read_run
from rollouts.statistics import seeds_interval, wilson_interval
from sweeps.attempt import read_record
from sweeps.plan import MEASURED, PlannedRun

Row = dict[str, Any]
RUNS, TABLE = "runs.csv", "table.csv"
SEED = "seed"  # the value that a mean is taken over


def rows_of_runs(runs: Iterable[PlannedRun]) -> list[Row]:
    """A row per agent that a run judged: its success with Wilson's interval, in the form of docs/results/*.csv.

    ``seconds`` is the wall-clock of the whole run, ``sha256`` of what was judged, ``commit`` of its last start.
    """
    rows: list[Row] = []
    for run in runs:
        judged = {"evaluate": run.product, "dsrl": run.folder}.get(run.command)
        if judged is None or (judged.is_dir() and not (judged / "report.json").is_file()):
            continue
        record, found = read_record(run.folder), read_run(judged)
        for agent in found.agents:
            rows.append(
                {
                    "run": run.name,
                    "step": run.step,
                    **run.point,
                    "agent": agent.name,
                    "selected": str(agent.name == found.chosen).lower(),
                    "episodes": agent.n_episodes,
                    "success": round(agent.success_rate, 4),
                    "low": round(agent.ci95[0], 3),
                    "high": round(agent.ci95[1], 3),
                    "mean_length": round(agent.mean_length, 1),
                    "seconds": round(record.seconds) if record else "",
                    "attempts": len(record.starts) if record else "",
                    "sha256": _judged_sha256(run, agent.name)[:16],
                    "commit": (found.starts[-1]["commit"] or "")[:7] if found.starts else "",
                }
            )
    return rows


def table_of(rows: Sequence[Row]) -> list[Row]:
    """Rows that differ in their seed alone as one, with means over the seeds.

    ``low`` and ``high`` are Wilson's 95 % interval of all their episodes: what further episodes of these very seeds may
    give. ``seeds_low`` and ``seeds_high`` are what a further seed's mean may be expected around, see
    ``rollouts.statistics.seeds_interval``; empty where there is one seed.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        values = {key: value for key, value in row.items() if key not in (*MEASURED, SEED)}
        groups.setdefault(tuple(values.items()), []).append(row)
    table = []
    for key, group in groups.items():
        rates = [row["success"] for row in group]
        counts = [row["episodes"] for row in group]
        successes = sum(round(rate * count) for rate, count in zip(rates, counts, strict=True))
        low, high = wilson_interval(successes, sum(counts))
        seeds = seeds_interval(rates, counts) if len(group) > 1 else None
        table.append(
            {
                **dict(key),
                "seeds": len(group),
                "episodes": sum(counts),
                "success": round(math.fsum(rates) / len(rates), 4),
                "low": round(low, 3),
                "high": round(high, 3),
                "seeds_low": "" if seeds is None else round(seeds[0], 3),
                "seeds_high": "" if seeds is None else round(seeds[1], 3),
                "mean_length": round(math.fsum(row["mean_length"] for row in group) / len(group), 1),
                "seconds": round(math.fsum(row["seconds"] for row in group) / len(group)),
            }
        )
    return table


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows, with every column that one of them has; atomically."""
    last = [name for row in rows for name in row if name in MEASURED or name.startswith("seeds")]
    names = dict.fromkeys([*(name for row in rows for name in row if name not in last), *last])
    with atomic_path(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(names), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _judged_sha256(run: PlannedRun, agent: str) -> str:
    """Of the policy, or of the SAC that steered it."""
    if run.command == "dsrl":
        if agent.startswith("steered"):
            return sha256_of(run.product)
        after = dict(zip(run.words, run.words[1:], strict=False))
        base = after.get("--bc_checkpoint") or after.get("--checkpoint")
        return "" if base is None else sha256_of(Path(base))
    results = json.loads(run.product.read_text())
    return str((results["checkpoint"] if agent == "base" or results["sac"] is None else results["sac"])["sha256"])
