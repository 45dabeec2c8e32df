"""Training steps per second of `fit` against the bare arithmetic and against the usual recipe.

    python benchmarks/training_speed.py --data data/lift_scripted.hdf5
    OMP_NUM_THREADS=1 python benchmarks/training_speed.py --data data/lift_scripted.hdf5 --clock cpu \
        --variants fit "bare loop" "fit, bf16-mixed"

Variants alternate within each round, so that whatever else the machine does falls on all of them; what counts are the
ratios within a round, given with their range. On a machine that others use, ``--clock cpu`` counts this process's own
time in place of the wall's; it leaves out worker processes. The file is written anew after every variant, so that an
interrupted run keeps what it measured; it lies in docs/results/training_speed_{wall,cpu}.json unless told otherwise.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from callbacks.checkpoint_io import SafeCheckpointIO
from callbacks.checkpoints import LastCheckpoint
from callbacks.ema import EMA
from callbacks.non_finite import StopOnNonFinite
from callbacks.progress import RunProgress
from callbacks.save_on_signal import SaveOnSignal
from common.files import atomic_path
from datamodules.robomimic_datamodule import RobomimicDataModule
from lightning_modules import DiffusionBC
from policies.networks import MLPNoiseNetwork

ROOT = Path(__file__).resolve().parent.parent
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
NETWORKS = {"seed 3x1024": (1024, 1024, 1024), "quickstart 3x512": (512, 512, 512), "toy": (16,)}
# An epoch has batches of two sizes, the last being smaller: both should be compiled and captured before the clock runs.
WARMUP = {"off": 5, "kernels": 250, "cuda_graphs": 250}
TRACED_STEPS = 20


@dataclass(frozen=True)
class Device:
    """Where it runs, and by which clock."""

    name: str
    clock: str

    def now(self) -> float:
        """Seconds, once the device has done what was asked of it."""
        if self.name == "cuda":
            torch.cuda.synchronize()
        return CLOCKS[self.clock]()


class Stopwatch(Callback):
    """Seconds from step ``begin`` to the end of training: whatever `fit` does per step and epoch is inside."""

    def __init__(self, device: Device, begin: int) -> None:
        self.device = device
        self.begin = begin
        self.seconds = 0.0
        self._start = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.begin:
            self._start = self.device.now()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = self.device.now() - self._start


def make_module(data: RobomimicDataModule, hidden: tuple[int, ...], **options: Any) -> DiffusionBC:
    network = partial(MLPNoiseNetwork, hidden_dims=list(hidden))
    module = DiffusionBC(data.obs_dims, data.action_dim, data.pred_horizon, network=network, **options)
    module.set_normalizers(data.train_chunks.obs, data.train_chunks.actions)
    return module


def fit(data: RobomimicDataModule, hidden: tuple[int, ...], steps: int, device: Device, **options: Any) -> float:
    """`fit` with everything it does except rollouts: EMA, clipping, checks, progress line, checkpoints."""
    precision = options.pop("precision", "32-true")
    warmup = WARMUP[options.get("compile_network", "off")]
    watch = Stopwatch(device, warmup)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if device.name == "cuda" else "cpu",
            devices=1,
            max_steps=warmup + steps,
            precision=precision,
            gradient_clip_val=1.0,
            limit_val_batches=0,
            logger=False,
            enable_model_summary=False,
            callbacks=[EMA(), RunProgress(), StopOnNonFinite(), SaveOnSignal(), LastCheckpoint(folder), watch],
        )
        trainer.strategy.checkpoint_io = SafeCheckpointIO()
        trainer.fit(make_module(data, hidden, **options), datamodule=data)
    return steps / watch.seconds


def bare_step(data: RobomimicDataModule, hidden: tuple[int, ...], device: Device) -> Callable[[], None]:
    """One step with nothing around it: forward, backward, AdamW and EMA on one batch that is there already."""
    policy = make_module(data, hidden).policy.to(device.name)
    average: list[Tensor] = list(copy.deepcopy(policy).parameters())
    weights = [parameter.detach() for parameter in policy.parameters()]
    obs, actions = (
        part[: data.batch_size].to(device.name) for part in (data.train_chunks.obs, data.train_chunks.actions)
    )
    on_gpu = device.name == "cuda"  # where a graph can only hold an optimiser that keeps its count there
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, weight_decay=1e-6, fused=True, capturable=on_gpu)

    def step() -> None:
        optimizer.zero_grad()
        policy.loss(obs, actions).backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 0.005)

    return step


def time_steps(step: Callable[[], None], steps: int, device: Device) -> float:
    """Steps per second, after a warm-up."""
    for _ in range(WARMUP["off"]):
        step()
    start = device.now()
    for _ in range(steps):
        step()
    return steps / (device.now() - start)


def bare(data: RobomimicDataModule, hidden: tuple[int, ...], steps: int, device: Device) -> float:
    """The bare step, launched kernel by kernel."""
    return time_steps(bare_step(data, hidden, device), steps, device)


def bare_graph(data: RobomimicDataModule, hidden: tuple[int, ...], steps: int, device: Device) -> float:
    """The bare step captured once, whole, and replayed as one CUDA graph; on a CPU, which has none, as it is."""
    step = bare_step(data, hidden, device)
    return time_steps(captured(step) if device.name == "cuda" else step, steps, device)


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The replay of ``step`` as one CUDA graph, by the recipe of PyTorch's notes: first a warm-up on a side stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def kernel_seconds(data: RobomimicDataModule, hidden: tuple[int, ...], device: Device) -> float:
    """The floor: seconds per bare step in which the device computes, whatever the host takes to tell it so."""
    step = bare_step(data, hidden, device)
    time_steps(step, WARMUP["off"], device)
    on_gpu = device.name == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as trace:
        for _ in range(TRACED_STEPS):
            step()
        device.now()
    if on_gpu:
        kernels = [e for e in trace.key_averages() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        return sum(event.self_device_time_total for event in kernels) / 1e6 / TRACED_STEPS
    return sum(event.self_cpu_time_total for event in trace.key_averages()) / 1e6 / TRACED_STEPS


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """The usual recipe's data set: one window per call."""

    def __init__(self, data: RobomimicDataModule) -> None:
        self.obs, self.actions = data.train_chunks.obs, data.train_chunks.actions

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.obs[index], self.actions[index]


def usual(
    data: RobomimicDataModule, hidden: tuple[int, ...], steps: int, device: Device, persistent: bool = True
) -> float:
    """The usual recipe: per-item data set, four workers, ``.item()`` per step, EMA parameter by parameter."""
    policy = make_module(data, hidden).policy.to(device.name)
    average = copy.deepcopy(policy)
    loader = DataLoader(Windows(data), data.batch_size, shuffle=True, num_workers=4, persistent_workers=persistent)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, weight_decay=1e-6)
    start, step, losses = 0.0, 0, []
    while True:
        for obs, actions in loader:
            if step == WARMUP["off"]:
                start = device.now()
            if step == WARMUP["off"] + steps:
                return steps / (device.now() - start)
            optimizer.zero_grad()
            loss = policy.loss(obs.to(device.name), actions.to(device.name))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for mean, value in zip(average.parameters(), policy.parameters(), strict=True):
                    mean.mul_(0.995).add_(value, alpha=0.005)
            losses.append(loss.item())
            step += 1


VARIANTS: dict[str, Callable[..., float]] = {
    "fit": fit,
    "bare loop": bare,
    "bare loop, one graph": bare_graph,
    "usual recipe": usual,
    "usual recipe, new workers each epoch": partial(usual, persistent=False),
    "fit, bf16-mixed": partial(fit, precision="bf16-mixed"),
    "fit, compiled": partial(fit, compile_network="kernels"),
    "fit, compiled, CUDA graphs": partial(fit, compile_network="cuda_graphs"),
    "fit, bf16-mixed, compiled, CUDA graphs": partial(fit, precision="bf16-mixed", compile_network="cuda_graphs"),
}
BY_DEFAULT = [name for name in VARIANTS if "compiled" not in name and "graph" not in name]


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a Robomimic low-dim file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=80, help="timed steps per variant and round")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=BY_DEFAULT)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[n for n in NETWORKS if n != "toy"])
    parser.add_argument("--floor", action="store_true", help="also the device's own time per step, by the profiler")
    parser.add_argument("--output", type=Path, help="a JSON file, in place of the one in docs/results")
    args = parser.parse_args()
    device = Device(args.device, args.clock)
    data = RobomimicDataModule(args.data)
    data.setup()
    result: dict[str, Any] = {
        "clock": args.clock,
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "device": args.device},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "windows": len(data.train_chunks),
        "steps": args.steps,
        "networks": {},
    }
    output = args.output or ROOT / f"docs/results/training_speed_{args.clock}.json"
    for label in args.networks:
        rates: dict[str, list[float]] = {}
        floor = {"kernel seconds per step": [kernel_seconds(data, NETWORKS[label], device)]} if args.floor else {}
        for _ in range(args.rounds):
            for name in args.variants:
                rate = VARIANTS[name](data, NETWORKS[label], args.steps, device)
                rates.setdefault(name, []).append(rate)
                result["networks"][label] = summary(rates, floor)
                with atomic_path(output) as partial_path:
                    partial_path.write_text(json.dumps(result, indent=1) + "\n")
        print(label)
        for name, row in result["networks"][label].items():
            print(f"  {name:<55} {row['median']:7.5g}  ({row['min']:.5g} to {row['max']:.5g})", flush=True)


def summary(rates: dict[str, list[float]], floor: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and range over the rounds: steps/s of each variant, and `fit` against each within a round."""
    ratios = {
        f"fit / {name}": [a / b for a, b in zip(rates["fit"], each, strict=False)]  # the last round may be under way
        for name, each in rates.items()
        if name != "fit" and "fit" in rates
    }
    rows = {f"{name}, steps/s": each for name, each in rates.items()} | ratios | floor
    return {name: {"median": statistics.median(v), "min": min(v), "max": max(v)} for name, v in rows.items()}


if __name__ == "__main__":
    main()
