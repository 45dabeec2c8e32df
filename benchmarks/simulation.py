"""Speed of the simulator: control steps, resets, whole evaluations, and where the time goes.

python -m benchmarks.simulation --checkpoint policy.safetensors --output docs/results/simulation_speed.json

Variants alternate in one run, from the same states. Control steps and resets are timed in CPU seconds of the process,
which a busy machine disturbs less than wall-clock time; evaluations in both.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mujoco  # after envs, which chooses its GL library
import numpy as np
import torch

from common.files import atomic_path
from envs.action_chunk import ActionChunkEnv
from envs.episodes import episode_generator, episode_seed
from envs.osc_kernel import Goal
from envs.pool import EnvPool, EnvSpec, available_cpus
from envs.robosuite_common import MujocoEnv, make_env, model_and_data
from envs.robosuite_env import RobosuiteEnv
from envs.simulator import simulator
from envs.stepping import OscStepping
from envs.tasks import TASKS, default_env_args, task_of
from experts.collection import expert_class
from experts.manner import draw_manner
from policies import load_policy
from rollouts.agents import DiffusionAgent
from rollouts.loop import Agent, Episode, run_episodes

SUBSTEPS = 25


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    start = time.process_time_ns()
    work()
    return (time.process_time_ns() - start) * 1e-9


def spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median and the range from the 10th to the 90th percentile."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"median": round(float(median), 4), "p10": round(float(low), 4), "p90": round(float(high), 4)}


CHUNK = 4  # actions per chunk, as the policies have it


@dataclass
class Step:
    """A control step of an expert's episode: what precedes it, in the fused environment, and its action."""

    data: mujoco.MjData
    goal: Goal
    action: np.ndarray


def record_episode(env: RobosuiteEnv, index: int) -> list[Step]:
    """A scripted expert's episode; random actions for 100 steps where there is none."""
    task = task_of(env.env_args)
    assert task is not None
    assert isinstance(env._stepping, OscStepping)
    model, data = model_and_data(env._env)
    rng = episode_generator(0, index)
    obs, _ = env.reset(seed=episode_seed(0, index))
    scripted = TASKS[task].expert is not None
    expert = expert_class(task)(env.obs_dims, draw_manner("proficient", rng), rng) if scripted else None
    steps: list[Step] = []
    success = False
    while not success and len(steps) < (100 if expert is None else 250):
        before = mujoco.MjData(model)
        mujoco.mj_copyData(before, model, data)
        steps.append(
            Step(
                before,
                Goal(*(part.copy() for part in env._stepping._goal)),
                rng.uniform(-1, 1, 7) if expert is None else expert.act(obs),
            )
        )
        obs, _, success, _, _ = env.step(steps[-1].action)
    return steps


class Variants:
    """The ways to simulate an episode, each timed in CPU seconds."""

    def __init__(self, env: RobosuiteEnv, stock: MujocoEnv) -> None:
        assert isinstance(env._stepping, OscStepping)
        self.env, self.stock, self.stepping = env, stock, env._stepping
        self.model, self.data = model_and_data(env._env)

    def _begin(self, step: Step) -> None:
        mujoco.mj_copyData(self.data, self.model, step.data)
        self.stepping._goal = Goal(*(part.copy() for part in step.goal))

    def floor(self, block: list[Step]) -> float:
        """Bare physics: 25 times ``mj_step`` from the state before each control step, with the torques held."""
        total = 0.0
        for step in block:
            self._begin(step)
            total += seconds(lambda: mujoco.mj_step(self.model, self.data, SUBSTEPS))
        return total

    def bare_step(self, block: list[Step]) -> float:
        """The fused control step without success and observation."""
        self._begin(block[0])

        def simulate() -> None:
            for step in block:
                self.stepping.step(step.action)

        return seconds(simulate)

    def success(self, block: list[Step]) -> float:
        return seconds(lambda: [self.env._success.check() for _ in block])

    def observe(self, block: list[Step]) -> float:
        return seconds(lambda: [self.env.observe().astype(np.float32) for _ in block])

    def fused(self, block: list[Step]) -> float:
        """``RobosuiteEnv.step``: success and observation at every control step."""
        self._begin(block[0])
        return seconds(lambda: [self.env.step(step.action) for step in block])

    def chunks(self, block: list[Step]) -> float:
        """``ActionChunkEnv.step``: success at every control step, the observation once per chunk."""
        chunks = ActionChunkEnv(self.env, CHUNK)
        actions = np.array([step.action for step in block]).reshape(len(block) // CHUNK, CHUNK, -1)
        self._begin(block[0])
        return seconds(lambda: [chunks.step(chunk) for chunk in actions])

    def robosuite(self, block: list[Step]) -> float:
        """robosuite's own ``env.step``."""
        self.stock.sim.set_state_from_flattened(
            np.concatenate([[block[0].data.time], block[0].data.qpos, block[0].data.qvel])
        )
        self.stock.sim.forward()
        return seconds(lambda: [self.stock.step(step.action) for step in block])


def benchmark_steps(task: str, n_episodes: int) -> dict[str, Any]:
    """Control steps per second of stock, fused and the floor, over a scripted expert's episodes."""
    env, stock = RobosuiteEnv(default_env_args(task)), make_env(default_env_args(task))
    env.horizon = 10**9
    variants = Variants(env, stock)
    ways = {way.__name__: way for way in (variants.floor, variants.fused, variants.robosuite, variants.chunks)}
    ways |= {way.__name__: way for way in (variants.bare_step, variants.success, variants.observe)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    control_steps = 0
    for index in range(n_episodes):
        steps = record_episode(env, index)
        with simulator.drawing(stock, episode_seed(0, index)):
            stock.reset()
        # Without the last steps, in which the cube or can is in place: they would end a chunk.
        steps = steps[: (len(steps) - 2) // CHUNK * CHUNK]
        control_steps += len(steps)
        for name, way in ways.items():
            times[name].append(way(steps) / len(steps))
    columns = {name: np.array(values) for name, values in times.items()}
    micro = {name: round(float(np.median(column)) * 1e6, 1) for name, column in columns.items()}
    return {
        "task": task,
        "control_steps": control_steps,
        "steps_per_second": {name: spread(1 / columns[name]) for name in ("robosuite", "fused", "chunks", "floor")},
        "fused_over_robosuite": spread(columns["robosuite"] / columns["fused"]),
        "fused_over_floor": spread(columns["floor"] / columns["fused"]),
        "chunks_over_floor": spread(columns["floor"] / columns["chunks"]),
        "microseconds_per_control_step": {
            "physics": micro["floor"],
            "controller, gripper and call": round(micro["bare_step"] - micro["floor"], 1),
            "success": micro["success"],
            "observation": micro["observe"],
            "rest of RobosuiteEnv.step": round(
                micro["fused"] - micro["bare_step"] - micro["success"] - micro["observe"], 1
            ),
            "robosuite's step, all of it": micro["robosuite"],
        },
    }


def benchmark_resets(task: str, n: int) -> dict[str, Any]:
    """Milliseconds of a seeded reset against robosuite's hard reset, alternating."""
    env, stock = RobosuiteEnv(default_env_args(task)), make_env(default_env_args(task))
    ours, theirs = [], []
    for seed in range(n):
        ours.append(1e3 * seconds(partial(env.reset, seed=seed)))
        theirs.append(1e3 * seconds(stock.reset))
    state, model_file = env.state(), env.model_file()
    replay = [1e3 * seconds(lambda: env.reset_to(state, model_file)) for _ in range(n)]
    return {"task": task, "seeded": spread(ours), "reset_to": spread(replay), "robosuite_hard_reset": spread(theirs)}


def plain_loop(agent: Agent, spec: EnvSpec, seed: int, indices: Sequence[int]) -> int:
    """The evaluation as one would first write it: one stock robosuite env, hard resets, decisions for one env."""
    env = make_env(spec.env_args)

    def flat(reading: dict[str, np.ndarray]) -> np.ndarray:
        keys = ["object-state" if key == "object" else key for key in spec.obs_keys]
        return np.concatenate([reading[key] for key in keys]).astype(np.float32)

    env_steps = 0
    for index in indices:
        episode = Episode(index, episode_seed(seed, index), episode_generator(seed, index))
        with simulator.drawing(env, episode.seed):
            obs, length, success = flat(env.reset()), 0, False
        while not success and length < spec.horizon:
            for action in agent.act(obs[None], [episode])[0]:
                reading, _, _, _ = env.step(action)
                obs, length, success = flat(reading), length + 1, bool(env._check_success())
                if success or length >= spec.horizon:
                    break
        env_steps += length
    return env_steps


def cpu_seconds(pool: EnvPool | None = None) -> float:
    """CPU seconds that this process, and the workers of ``pool``, have used so far."""
    total = time.process_time()
    for worker in pool._workers if pool is not None else ():
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += sum(int(ticks) for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")
    return total


def benchmark_evaluation(checkpoint: Path, n_episodes: int, rounds: int, pools: Sequence[tuple[int, int]]) -> Any:
    """Whole evaluations in pools of (workers, envs) against the plain loop; alternating, start of workers apart.

    All costs, resets and decisions included, are given per env step, because the plain loop runs fewer episodes.
    """
    policy = load_policy(checkpoint)
    agent = DiffusionAgent(policy)
    assert policy.spec.task is not None
    spec = EnvSpec(default_env_args(policy.spec.task), tuple(policy.spec.obs_keys), policy.spec.pred_horizon)
    few = max(4, n_episodes // 5)
    names = {f"{workers} workers, {envs} envs": (workers, envs) for workers, envs in pools}
    rates: dict[str, list[float]] = {name: [] for name in ("plain loop", *names)}
    cpu: dict[str, list[float]] = {name: [] for name in rates}
    starts: dict[str, list[float]] = {name: [] for name in names}
    torch.set_num_threads(1)  # for the plain loop; an agent on the CPU sees to its own
    for number in range(rounds):
        begin, cpu_begin = time.perf_counter(), cpu_seconds()
        env_steps = plain_loop(agent, spec, number, range(few))
        rates["plain loop"].append(env_steps / (time.perf_counter() - begin))
        cpu["plain loop"].append((cpu_seconds() - cpu_begin) / env_steps * 1e3)
        for name, (workers, envs) in names.items():
            begin = time.perf_counter()
            with EnvPool(spec, envs, workers) as pool:
                starts[name].append(time.perf_counter() - begin)
                begin, cpu_begin = time.perf_counter(), cpu_seconds(pool)
                results = run_episodes(agent, pool, number, range(n_episodes))
                env_steps = sum(result.length for result in results)
                rates[name].append(env_steps / (time.perf_counter() - begin))
                cpu[name].append((cpu_seconds(pool) - cpu_begin) / env_steps * 1e3)
    plain, plain_cpu = np.array(rates["plain loop"]), np.array(cpu["plain loop"])
    return {
        "task": policy.spec.task,
        "network": policy.spec.network.init_args,
        "ddim_steps": policy.spec.diffusion.ddim_steps,
        "episodes": {"plain loop": few, "pools": n_episodes},
        "cpus": available_cpus(),
        "load_average": os.getloadavg(),
        "env_steps_per_second": {name: spread(values) for name, values in rates.items()},
        "over_plain_loop": {name: spread(np.array(values) / plain) for name, values in rates.items()},
        "cpu_milliseconds_per_env_step": {name: spread(values) for name, values in cpu.items()},
        "cpu_of_plain_loop_over_it": {name: spread(plain_cpu / np.array(values)) for name, values in cpu.items()},
        "seconds_to_start": {name: spread(values) for name, values in starts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a policy; without it evaluations are left out")
    parser.add_argument("--output", type=Path)
    parser.add_argument(
        "--step_episodes", type=int, default=10, help="expert episodes per task; the variants alternate after each"
    )
    parser.add_argument("--tasks", default="lift,can,square,tool_hang", help="those with one arm")
    parser.add_argument("--resets", type=int, default=10)
    parser.add_argument("--eval_episodes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pools", default="1:1,2:2,2:4,2:8,2:16,4:4", help="workers:envs, ...")
    args = parser.parse_args()
    pools = [(int(workers), int(envs)) for workers, envs in (pair.split(":") for pair in args.pools.split(","))]
    report: dict[str, Any] = {"steps": [], "resets": []}
    for task in args.tasks.split(","):
        report["steps"].append(benchmark_steps(task, args.step_episodes))
        report["resets"].append(benchmark_resets(task, args.resets))
        print(json.dumps([report["steps"][-1], report["resets"][-1]], indent=1))
    if args.checkpoint is not None:
        report["evaluation"] = benchmark_evaluation(args.checkpoint, args.eval_episodes, args.rounds, pools)
        print(json.dumps(report["evaluation"], indent=1))
    if args.output is not None:
        with atomic_path(args.output) as path:
            path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
