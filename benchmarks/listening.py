"""Does a policy listen to its noise, and what could steering gain? Its actions' spread, and success per initial state.

    python -m benchmarks.listening --checkpoint policy.safetensors --dataset square_ph.hdf5 --output listening.json

Every initial state is played once per draw: all chunks of an episode are decoded from noise of that draw's own
generator. States where no draw succeeds bound what choosing among such noises can reach; an actor that leaves the
Gaussian may still do better.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.files import atomic_path, sha256_of
from datamodules.hdf5 import load_arrays
from envs.pool import EnvPool
from policies import load_policy
from policies.diffusion_policy import DiffusionPolicy
from rollouts.agents import DiffusionAgent
from rollouts.evaluation import evaluate_agent
from rollouts.loop import Episode
from rollouts.simulation import simulation_of

STATES, DRAWS = 200, 30  # of the spread


class OtherDraw(DiffusionAgent):
    """``DiffusionAgent`` whose noise is that of another draw, from the same initial states."""

    def __init__(self, policy: DiffusionPolicy, scale: float, draw: int) -> None:
        super().__init__(policy, scale)
        self.draw = draw
        self.generators: dict[int, np.random.Generator] = {}

    def noise(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        for episode in episodes:
            self.generators.setdefault(episode.index, np.random.default_rng([episode.seed, self.draw]))
        draws = [self.generators[e.index].standard_normal(self._chunk_shape, dtype=np.float32) for e in episodes]
        return self._noise_scale * np.stack(draws)


def spread(policy: DiffusionPolicy, dataset: Path) -> float:
    """Standard deviation of an action component over N(0, I), in its unit: mean over components and states."""
    generator = torch.Generator().manual_seed(0)
    demos = load_arrays(dataset, list(policy.spec.obs_keys)).values()
    obs = np.concatenate([np.concatenate([demo.obs[key] for key in policy.spec.obs_keys], axis=1) for demo in demos])
    chosen = torch.randperm(len(obs), generator=generator)[:STATES]
    states = torch.as_tensor(obs, dtype=torch.float32)[chosen].repeat_interleave(DRAWS, dim=0)
    noise = torch.randn(len(states), *policy.chunk_shape, generator=generator)
    with torch.inference_mode():
        return policy.decode(states, noise).unflatten(0, (-1, DRAWS)).std(dim=1).mean().item()


def per_state(policy: DiffusionPolicy, pool: EnvPool, scale: float, seed: int, states: int, draws: int) -> np.ndarray:
    """Success (states, draws) of every initial state under every draw."""
    played = [
        evaluate_agent(OtherDraw(policy, scale, draw), pool, seed, states, f"{scale:g} N(0, I), draw {draw}")
        for draw in range(draws)
    ]
    return np.array([[result.success for result in evaluation.results] for evaluation in played]).T


def summary(success: np.ndarray) -> dict[str, Any]:
    """Of success (states, draws): the mean, and how the successes lie over the states."""
    solved = success.mean(axis=1)
    return {
        "states": len(success),
        "draws": success.shape[1],
        "mean_success": float(solved.mean()),
        "states_where_some_draw_succeeds": float((solved > 0).mean()),
        "states_where_all_succeed": float((solved == 1).mean()),
        "successes_per_state": success.sum(axis=1).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True, help="states for the spread")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 0.5])
    parser.add_argument("--states", type=int, default=50)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    policy = load_policy(options.checkpoint)
    document: dict[str, Any] = {
        "sha256": sha256_of(options.checkpoint),
        "prediction": policy.spec.diffusion.prediction,
        "spread": spread(policy, options.dataset),
        "seed": options.seed,
    }
    with EnvPool(simulation_of(policy.spec, None, None)[1]) as pool:
        for scale in options.scales:
            success = per_state(policy, pool, scale, options.seed, options.states, options.draws)
            document[f"{scale:g} N(0, I)"] = summary(success)
    with atomic_path(options.output) as partial:
        partial.write_text(json.dumps(document, indent=1))
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
