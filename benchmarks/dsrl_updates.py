"""Updates per second of the learner against stock SB3 SAC of the same sizes, alternating in one run.

python -m benchmarks.dsrl_updates --output docs/results/dsrl_updates.json
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, get_args

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from common.compilation import Compilation
from common.files import atomic_path
from dsrl.learners.sac import NoiseSAC, SACConfig

# Hidden layers, critics and batch: those of dsrl_lift.yaml and dsrl_lift_sac.yaml, then larger ones.
SIZES = (([128] * 2, 4, 128), ([128] * 2, 2, 256), ([128] * 3, 2, 256), ([256] * 2, 2, 256))


class SpacesOnly(gymnasium.Env):
    """Spaces, and no dynamics."""

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (action_dim,), np.float32)


def make_stock(
    obs_dim: int, action_dim: int, hidden: list[int], ent_coef: str, device: str = "cpu", n_critics: int = 2
) -> SAC:
    """Stock SAC with its replay buffer and a silent logger."""
    venv = DummyVecEnv([lambda: SpacesOnly(obs_dim, action_dim)])
    kwargs = {"net_arch": hidden, "n_critics": n_critics}
    model = SAC("MlpPolicy", venv, policy_kwargs=kwargs, ent_coef=ent_coef, buffer_size=10_000, device=device)
    model.set_logger(Logger(None, []))
    return model


def make_fast(
    obs_dim: int,
    action_dim: int,
    hidden: list[int],
    ent_coef: str,
    device: str = "cpu",
    compile_losses: Compilation = "off",
    n_critics: int = 2,
    **options: Any,
) -> NoiseSAC:
    """The learner with stock SAC's network sizes and losses, and further ``options`` of it."""
    venv = DummyVecEnv([lambda: SpacesOnly(obs_dim, action_dim)])
    stock = {"layer_norm": False, "entropy_in_target": True, "target_entropy": -float(action_dim), "batch_size": 256}
    config = SACConfig(
        hidden_sizes=hidden,
        n_critics=n_critics,
        ent_coef=ent_coef,
        buffer_size=10_000,
        compile_losses=compile_losses,
        **{**stock, **options},
    )
    return NoiseSAC(config, venv, device=device)


def copy_weights(stock: SAC, fast: NoiseSAC) -> None:
    """Give ``fast`` the weights of ``stock``, critics stacked."""
    fast.policy.actor.load_state_dict(stock.actor.state_dict())
    for ours, theirs in ((fast.policy.critic, stock.critic), (fast.policy.critic_target, stock.critic_target)):
        layers = [[m for m in net.modules() if isinstance(m, torch.nn.Linear)] for net in theirs.q_networks]
        with torch.no_grad():
            for i, members in enumerate(zip(*layers, strict=True)):
                ours.weights[i].copy_(torch.stack([member.weight.T for member in members]))
                ours.biases[i].copy_(torch.stack([member.bias[None] for member in members]))


def fill(buffer: ReplayBuffer, rows: int) -> None:
    """Random transitions, the same for every buffer of these dimensions."""
    rng = np.random.default_rng(0)
    for _ in range(rows):
        obs, next_obs = rng.standard_normal((2, 1, *buffer.obs_shape)).astype(np.float32)
        action = rng.uniform(-1, 1, (1, buffer.action_dim)).astype(np.float32)
        buffer.add(obs, next_obs, action, rng.standard_normal(1), rng.random(1) < 0.1, [{}])


def compare(
    hidden: list[int],
    n_critics: int,
    batch_size: int,
    updates: int,
    rounds: int,
    device: str,
    compile_losses: Compilation = "off",
) -> dict[str, Any]:
    """Alternating rounds of ``updates`` updates each; ratio of times with its spread.

    On several CPU threads the learner takes part with one, too.
    """
    models: dict[str, Any] = {
        "stock": make_stock(23, 28, hidden, "auto", device, n_critics=n_critics),
        "fast": make_fast(23, 28, hidden, "auto", device, compile_losses, n_critics),
    }
    for model in models.values():
        fill(model.replay_buffer, 2_000)
        model.train(gradient_steps=10, batch_size=batch_size)
    threads = torch.get_num_threads()
    again = [("fast", 1)] if threads > 1 and device == "cpu" else []
    turns = [("stock", threads), ("fast", threads), *again]
    seconds: dict[tuple[str, int], list[float]] = {turn: [] for turn in turns}
    for _ in range(rounds):
        for name, n in turns:
            torch.set_num_threads(n)
            models[name].train(gradient_steps=2, batch_size=batch_size)  # the threads are there now
            _wait_for(device)
            begin = time.perf_counter()
            models[name].train(gradient_steps=updates, batch_size=batch_size)
            _wait_for(device)
            seconds[name, n].append(time.perf_counter() - begin)
    torch.set_num_threads(threads)
    stock, fast = (np.array(seconds[turn]) for turn in turns[:2])
    measured = {
        "hidden": hidden,
        "n_critics": n_critics,
        "batch_size": batch_size,
        "device": device,
        "compile_losses": compile_losses,
        "threads": threads,
        "stock_updates_per_s": updates / float(np.median(stock)),
        "fast_updates_per_s": updates / float(np.median(fast)),
        **_spread("ratio", stock / fast),
    }
    if again:  # above 1 where several threads are faster than one
        measured |= _spread("one_to_several_threads", np.array(seconds[turns[2]]) / fast)
    return measured


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _spread(name: str, ratios: np.ndarray) -> dict[str, float]:
    return {
        f"{name}_median": float(np.median(ratios)),
        f"{name}_min": float(ratios.min()),
        f"{name}_max": float(ratios.max()),
    }


def main() -> None:
    """Print and store the comparison for several sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--hidden", type=int, nargs="+", help="one size, 2 critics, batch 256, in place of the list")
    parser.add_argument("--compile_losses", choices=get_args(Compilation), default="off")
    args = parser.parse_args()
    rows = []
    for hidden, n_critics, batch_size in [(args.hidden, 2, 256)] if args.hidden else SIZES:
        sizes = (hidden, n_critics, batch_size)
        rows.append(compare(*sizes, args.updates, args.rounds, args.device, args.compile_losses))
        print(json.dumps(rows[-1]))
    if args.output:
        with atomic_path(Path(args.output)) as partial:
            partial.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
