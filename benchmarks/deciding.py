"""What deciding costs beside simulating, when the agent decides at once or waits for a batch.

python -m benchmarks.deciding --checkpoint policy.safetensors --output docs/results/deciding.json
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.simulation import cpu_seconds
from commands.simulation import load_checkpoint
from envs.pool import EnvPool
from rollouts import loop
from rollouts.agents import DiffusionAgent
from rollouts.simulation import simulation_of

AT_ONCE = 10**9


def seconds_of(pool: EnvPool) -> np.ndarray:
    """CPU time so far of this process and of the workers, (2,)."""
    own = time.process_time()
    return np.array([own, cpu_seconds(pool) - own])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--pools", nargs="+", default=["8/1", "16/2"], help="environments/workers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_checkpoint(args.checkpoint, None)
    _, spec = simulation_of(policy.spec, None, None)
    results = []
    waiting = loop._UNDER_WAY
    for n_envs, n_workers in (map(int, pool.split("/")) for pool in args.pools):
        milliseconds: dict[str, list[np.ndarray]] = {"at once": [], "in batches": []}
        with EnvPool(spec, n_envs, n_workers) as pool:
            loop.run_episodes(DiffusionAgent(policy), pool, 0, range(n_envs))
            for seed in range(args.rounds):
                outcomes = []
                for name, under_way in (("at once", AT_ONCE), ("in batches", waiting)):
                    loop._UNDER_WAY = under_way
                    before = seconds_of(pool)
                    episodes = loop.run_episodes(DiffusionAgent(policy), pool, seed, range(2 * n_envs))
                    outcomes.append([(episode.success, episode.length) for episode in episodes])
                    steps = sum(episode.length for episode in episodes)
                    milliseconds[name].append(1e3 * (seconds_of(pool) - before) / steps)
                assert outcomes[0] == outcomes[1], "the same episodes, however they are decided"
        row: dict[str, object] = {"environments": n_envs, "workers": n_workers}
        for name, rounds in milliseconds.items():
            deciding, simulating = np.median(rounds, axis=0).round(3).tolist()
            row[name] = {"deciding_ms_per_env_step": deciding, "simulating_ms_per_env_step": simulating}
        print(row, flush=True)
        results.append(row)
    network = policy.spec.network.init_args
    about = {"task": policy.spec.task, "network": network, "rounds": args.rounds, "clock": "CPU time, medians"}
    args.output.write_text(json.dumps({**about, "pools": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
