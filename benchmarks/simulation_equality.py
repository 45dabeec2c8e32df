"""Does the fused step simulate the same task as robosuite's own? Joint positions step by step, then success rates.

python -m benchmarks.simulation_equality --n_seeds 8 --output docs/results/simulation_equality.csv
python -m benchmarks.simulation_equality --checkpoint policy.safetensors --output docs/results/simulation_success.json

The same in the other environment (.venv15) for robosuite 1.5.2: simulation_equality15.csv, simulation_success15.json.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from common.files import atomic_path
from envs.episodes import episode_generator, episode_seed
from envs.pool import EnvPool, EnvSpec
from envs.robosuite_common import make_env
from envs.robosuite_env import RobosuiteEnv
from envs.simulator import simulator
from envs.tasks import TASKS, default_env_args
from experts.collection import expert_class
from experts.manner import draw_manner
from policies import load_policy
from rollouts.agents import DiffusionAgent
from rollouts.loop import run_episodes
from rollouts.statistics import wilson_interval

STEPS = 100
SHOWN = (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
MOVED = 1e-15  # rad


def differences(task: str, kind: str, index: int) -> dict[str, np.ndarray]:
    """Largest |qpos difference| after each of 100 control steps from the same reset, with the same actions.

    Of the fused step from robosuite's own, and of robosuite whose arm was moved by 1e-15 rad at the start, the
    state forwarded once more, from itself: what any rounding grows to.
    """
    fused = RobosuiteEnv(default_env_args(task))
    stock, moved = make_env(default_env_args(task)), make_env(default_env_args(task))
    seed, rng = episode_seed(1, index), episode_generator(1, index)
    obs, _ = fused.reset(seed=seed)
    for env in (stock, moved):
        with simulator.drawing(env, seed):
            env.reset()
    moved.sim.data.qpos[:7] += MOVED
    moved.sim.forward()
    expert = expert_class(task)(fused.obs_dims, draw_manner("proficient", rng), rng) if kind == "expert" else None
    nq = len(stock.sim.data.qpos)
    found: dict[str, list[float]] = {"fused": [], "moved": []}
    for _ in range(STEPS):
        action = expert.act(obs) if expert is not None else rng.uniform(-1, 1, 7)
        obs = fused.step(action)[0]
        stock.step(action)
        moved.step(action)
        found["fused"].append(np.abs(fused.state()[1 : 1 + nq] - stock.sim.data.qpos).max())
        found["moved"].append(np.abs(moved.sim.data.qpos - stock.sim.data.qpos).max())
    fused.close()
    return {pair: np.array(values) for pair, values in found.items()}


def curves(tasks: list[str], n_seeds: int) -> list[dict[str, Any]]:
    """One row per task, kind of actions, pair and control step: quantiles over seeds and the share within 1e-5."""
    rows = []
    for task in tasks:
        for kind in ("random", "expert") if TASKS[task].expert is not None else ("random",):
            episodes = [differences(task, kind, index) for index in range(n_seeds)]
            for pair in ("fused", "moved"):
                found = np.array([episode[pair] for episode in episodes])
                for step in SHOWN:
                    column = found[:, step - 1]
                    rows.append(
                        {
                            "task": task,
                            "actions": kind,
                            "from_robosuite": pair,
                            "control_step": step,
                            "median": f"{np.median(column):.1e}",
                            "max": f"{column.max():.1e}",
                            "within_1e-5": round(float((column < 1e-5).mean()), 2),
                        }
                    )
                    print(rows[-1], flush=True)
    return rows


def success_rates(checkpoint: Path, n_episodes: int, seed: int) -> dict[str, Any]:
    """One policy, the same episodes, fused and stock."""
    policy = load_policy(checkpoint)
    spec = policy.spec
    assert spec.task is not None
    report: dict[str, Any] = {
        "task": spec.task,
        "n_episodes": n_episodes,
        "seed": seed,
        "pred_horizon": spec.pred_horizon,
    }
    outcomes = {}
    for stepping in ("fused", "stock"):
        env_spec = EnvSpec(default_env_args(spec.task), tuple(spec.obs_keys), spec.pred_horizon, stepping=stepping)
        with EnvPool(env_spec) as pool:
            results = run_episodes(DiffusionAgent(policy), pool, seed, range(n_episodes))
        outcomes[stepping] = np.array([result.success for result in results])
        successes = int(outcomes[stepping].sum())
        low, high = wilson_interval(successes, n_episodes)
        report[stepping] = {"success_rate": successes / n_episodes, "ci95": [round(low, 4), round(high, 4)]}
        report[stepping]["mean_length"] = float(np.mean([result.length for result in results]))
        print(stepping, report[stepping], flush=True)
    report["episodes_with_the_same_outcome"] = float((outcomes["fused"] == outcomes["stock"]).mean())
    fused, stock = report["fused"]["ci95"], report["stock"]["ci95"]
    report["intervals_overlap"] = bool(fused[0] <= stock[1] and stock[0] <= fused[1])
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, help="compare this policy's success rates instead of joint positions"
    )
    parser.add_argument("--n_episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", default="lift,can,square,tool_hang", help="those with one arm")
    parser.add_argument("--n_seeds", type=int, default=10, help="episodes per curve")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if args.checkpoint is not None:
        report = success_rates(args.checkpoint, args.n_episodes, args.seed)
        print(json.dumps(report, indent=1))
        with atomic_path(args.output) as path:
            path.write_text(json.dumps(report, indent=1) + "\n")
        return
    rows = curves(args.tasks.split(","), args.n_seeds)
    with atomic_path(args.output) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
