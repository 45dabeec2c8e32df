"""Plays the shipped policies again and compares with the figures that stand beside them: `make verify`.

    python -m benchmarks.verify_pretrained
    python -m benchmarks.verify_pretrained --row results.json   # the row of a policy that is to be shipped

A row is made of what `evaluate --output results.json` wrote about the file that is to be shipped; of a steered actor
with --sac.

Fails where a figure lies outside the 95 % interval of what is measured now. The episodes are those of the figure (the
same seed), so that only another processor's rounding makes a difference.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from commands.simulation import players
from common.files import sha256_of
from envs.pool import EnvPool
from rollouts.evaluation import evaluate_agent

FOLDER = Path(__file__).parents[1] / "pretrained"
FIGURES = FOLDER / "figures.csv"


def rows() -> list[dict[str, str]]:
    """The figures: policy (a folder), agent (base or steered), seed, episodes, success with its interval, SHA-256."""
    with FIGURES.open() as file:
        return list(csv.DictReader(file))


def judged_file(row: dict[str, str]) -> Path:
    """The file whose figure a row states."""
    return FOLDER / row["policy"] / ("sac_best.zip" if row["agent"] == "steered" else "policy.safetensors")


def row_of(results: Path) -> dict[str, str]:
    """The row of the policy, or steered actor, that a results file is about."""
    found = json.loads(results.read_text())
    steered = found["sac"] is not None
    low, high = found["ci95"]
    return {
        "policy": found["task"],
        "agent": "steered" if steered else "base",
        "seed": str(found["seed"]),
        "episodes": str(found["n_episodes"]),
        "success": f"{found['success_rate']:.3f}",
        "low": f"{low:.3f}",
        "high": f"{high:.3f}",
        "mean_length": f"{found['mean_length']:.1f}",
        "sha256": found["sac" if steered else "checkpoint"]["sha256"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="play the shipped policies again")
    parser.add_argument("--n_episodes", type=int, help="fewer episodes than the figures are of")
    parser.add_argument("--row", type=Path, help="print the row of a results file, and play nothing")
    options = parser.parse_args()
    if options.row:
        print(",".join(row_of(options.row).values()))
        return
    table = Table("policy", "agent", "stated", "measured", "95 % interval", "")
    outside = 0
    for row in rows():
        judged = judged_file(row)
        sac = judged if row["agent"] == "steered" else None
        if sha256_of(judged) != row["sha256"]:
            sys.exit(f"{judged} is not the file that {FIGURES} speaks of: its SHA-256 is {sha256_of(judged)}")
        _, agents, _, _, env_spec = players(judged.with_name("policy.safetensors"), sac)
        n_episodes = options.n_episodes or int(row["episodes"])
        with EnvPool(env_spec, episodes=n_episodes) as pool:
            label = f"{row['policy']} {row['agent']}"
            found = evaluate_agent(agents[row["agent"]], pool, int(row["seed"]), n_episodes, label)
        low, high = found.ci95
        fits = low <= float(row["success"]) <= high
        outside += not fits
        measured = f"{found.success_rate:.3f}"
        table.add_row(
            row["policy"], row["agent"], row["success"], measured, f"{low:.3f} to {high:.3f}", "" if fits else "OUTSIDE"
        )
    Console().print(table)
    if outside:
        sys.exit(f"{outside} of the stated figures lie outside the measured interval")


if __name__ == "__main__":
    main()
