"""Which inference settings a trained policy does best with: DDIM spacing, clipping, number of steps.

python benchmarks/ddim_settings.py --checkpoint policy.safetensors --output docs/results/ddim_settings.json
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from common.files import atomic_path
from envs.pool import EnvPool
from policies import DiffusionConfig, load_policy
from rollouts.agents import DiffusionAgent
from rollouts.evaluation import evaluate_agent
from rollouts.simulation import simulation_of

VARIANTS: dict[str, dict[str, Any]] = {
    "leading, clipped, 10 steps": {},
    "leading, unclipped, 10 steps": {"clip_sample": False},
    "trailing, clipped, 10 steps": {"spacing": "trailing"},
    "trailing, unclipped, 10 steps": {"spacing": "trailing", "clip_sample": False},
    "leading, clipped, 5 steps": {"ddim_steps": 5},
    "leading, clipped, 20 steps": {"ddim_steps": 20},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    policy = load_policy(options.checkpoint)
    task, env_spec = simulation_of(policy.spec, None, None)
    rows = {}
    with EnvPool(env_spec) as pool:
        for name, changes in VARIANTS.items():
            fields = dataclasses.asdict(DiffusionConfig()) | changes
            policy.spec.diffusion = DiffusionConfig(**fields)
            evaluation = evaluate_agent(DiffusionAgent(policy), pool, options.seed, options.episodes, name)
            print(f"{name:<32}{evaluation}")
            rows[name] = {k: v for k, v in evaluation.to_dict().items() if k != "episodes"}
    with atomic_path(options.output) as partial:
        partial.write_text(json.dumps({"task": task, "train_step": policy.spec.train_step, "variants": rows}, indent=1))


if __name__ == "__main__":
    main()
