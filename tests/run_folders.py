"""The files of runs that nobody has to wait for."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dsrl.config import DSRLConfig
from rollouts.statistics import wilson_interval

START = {
    "command": "python cli.py dsrl --config configs/dsrl_lift.yaml --output <here & there>",
    "begun": "2026-11-28T12:00:00+00:00",
    "commit": "0123456789abcdef0123456789abcdef01234567+changes",
    "versions": {"python": "3.11.7", "torch": "2.9.0"},
    "hardware": {"cpu": "A CPU", "cpus": 2, "memory_gb": 8.0, "gpu": None},
}


def judged(rate: float, n: int = 40) -> dict[str, Any]:
    """An agent's part of a results file."""
    rng = np.random.default_rng(round(1000 * rate))
    successes = round(rate * n)
    episodes: list[dict[str, Any]] = [
        {
            "seed": i,
            "success": i < successes,
            "length": int(rng.integers(30, 90)) if i < successes else 100,
            "object": [round(0.03 * math.sin(i), 4), round(0.03 * math.cos(2 * i), 4), round(i / 7, 4)],
        }
        for i in range(n)
    ]
    lengths = [episode["length"] for episode in episodes]
    return {
        "seed": 0,
        "success_rate": successes / n,
        "ci95": list(wilson_interval(successes, n)),
        "mean_length": float(np.mean(lengths)),
        "n_episodes": n,
        "episodes": episodes,
        "wall_clock_seconds": 12.5,
    }


def write_results(path: Path) -> Path:
    """A results file of a steered policy beside its base."""
    header = {
        "task": "lift",
        "checkpoint": {"path": "policy.safetensors", "sha256": "ab" * 32, "weights": "ema"},
        "sac": {"path": "sac_best.zip", "sha256": "cd" * 32},
        "actor": "mean",
        "ddim_steps": 10,
        "noise_scale": 1.0,
        "horizon": 400,
        **START,
    }
    path.write_text(json.dumps({**header, **judged(0.9), "base": judged(0.6)}))
    return path


def write_dsrl_run(folder: Path) -> Path:
    """A finished run of `dsrl`."""
    folder.mkdir(parents=True)
    config = {"bc_checkpoint": "policy.safetensors", **DSRLConfig(task="lift").to_dict(), "output": str(folder)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    names = "env_steps,rollout/success,eval/deterministic_success,eval/stochastic_success,train/critic_loss,"
    names += "train/penalty,train/ent_coef,train/q_pi,train/q_data,time/wall_s,time/updates_s,time/evaluation_s"
    rows = [
        ",".join(
            str(value)
            for value in (
                10_000 * i,
                0.1 * i,
                *([0.1 * i] * 2 if i % 2 else ["", ""]),
                1 / i,
                i,
                0.1,
                -3,
                -4,
                60 * i,
                20 * i,
                9,
            )
        )
        for i in range(1, 9)
    ]
    (folder / "metrics.csv").write_text("\n".join([names, *rows]) + "\n")
    agents = {"steered, actor's mean": judged(0.9), "base, w = 0": judged(0.7), "base, w ~ N(0, I)": judged(0.6)}
    (folder / "report.json").write_text(
        json.dumps({"seed": 5, "selected": "mean", "wall_clock_seconds": 90, "agents": agents})
    )
    changed = {"task": "lift", "learner.hidden_sizes": [64, 64]}
    (folder / "provenance.json").write_text(json.dumps({"starts": [START], "changed": changed}))
    return folder


def write_fit_run(folder: Path) -> Path:
    """A finished run of `fit`."""
    folder.mkdir(parents=True)
    config = {"rollout": {"n_episodes": 20}, "data": {"task": "can", "path": "data/can.hdf5"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows: list[dict[str, float]] = []
    for i in range(1, 31):
        row = {"step": 100 * i, "epoch": i - 1, "train/loss": 1 / i, "time/wall_s": 3.0 * i, "time/rollouts_s": 1.0 * i}
        rows.append(row | ({"rollout/success_rate": i / 40, "val/loss": 1.5 / i} if i % 10 == 0 else {}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "provenance.json").write_text(json.dumps({"starts": [START], "changed": {"model.lr": 0.001}}))
    return folder
