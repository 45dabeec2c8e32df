"""Train a weak base policy for the DSRL experiments, in seconds to minutes and reproducibly.

    python -m benchmarks.dsrl_base --dataset data/lift_scripted.hdf5 --n_demos 5 --steps 2000 --output base.safetensors

A plain loop on ``DiffusionPolicy.loss``: AdamW, cosine to 0, EMA. Its arguments are the recipe the result tables quote.
"""

import argparse
import copy
import json

import torch

from datamodules.chunks import window_chunks
from datamodules.hdf5 import DatasetFile
from envs.tasks import DEFAULT_OBS_KEYS, task_of
from policies.diffusion_policy import DiffusionPolicy
from policies.schedule import DiffusionConfig
from policies.spec import NetworkConfig, PolicySpec


def train_base(args: argparse.Namespace) -> DiffusionPolicy:
    """The EMA policy after ``args.steps`` updates on ``n_demos`` demonstrations from ``first_demo`` on."""
    torch.manual_seed(args.seed)
    with DatasetFile(args.dataset) as file:
        names = file.names()[args.first_demo : args.first_demo + args.n_demos]
        demos = [file.read(name, DEFAULT_OBS_KEYS) for name in names]
        env_args, obs_dims, sha256 = file.env_args, file.obs_dims(), file.sha256
    assert env_args is not None
    episodes = [
        (
            torch.cat([torch.as_tensor(demo.obs[key], dtype=torch.float32) for key in DEFAULT_OBS_KEYS], dim=1),
            torch.as_tensor(demo.actions, dtype=torch.float32),
        )
        for demo in demos
    ]
    data = window_chunks(episodes, args.pred_horizon)
    spec = PolicySpec(
        obs_dims={key: obs_dims[key] for key in DEFAULT_OBS_KEYS},
        action_dim=data.actions.shape[2],
        pred_horizon=args.pred_horizon,
        network=NetworkConfig(init_args={"hidden_dims": [args.hidden] * 3}),
        diffusion=DiffusionConfig(ddim_steps=args.ddim_steps),
        env_args=env_args,
        task=task_of(env_args),
        data_sha256=sha256,
        weights="ema",
        train_step=args.steps,
    )
    policy = DiffusionPolicy(spec)
    policy.obs_normalizer.fit(data.obs)
    policy.action_normalizer.fit(data.actions)
    average = copy.deepcopy(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=args.lr, weight_decay=1e-6, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    for _ in range(args.steps):
        rows = torch.randint(len(data), (args.batch_size,))
        loss = policy.loss(data.obs[rows], data.actions[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(policy.parameters()), 1 - args.ema)
    return average


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--n_demos", type=int, default=10)
    parser.add_argument("--first_demo", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--pred_horizon", type=int, default=4)
    parser.add_argument("--ddim_steps", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train_base(args).save(args.output)
    print(json.dumps(vars(args)))


if __name__ == "__main__":
    main()
