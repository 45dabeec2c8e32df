"""Training runs of a second or two: a small data set, a small network, and processes that start without imports."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.demonstrations import Demonstration, write_dataset
from envs.tasks import default_env_args

ROOT = Path(__file__).resolve().parents[1]
OBS_DIMS = {"robot0_eef_pos": 3, "object": 5}
ACTION_DIM = 7


def demonstration(length: int, seed: int, obs_dims: dict[str, int] = OBS_DIMS) -> Demonstration:
    """Random but smooth: actions depend on the observation, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    obs = {key: rng.normal(size=(length, dim)).cumsum(0) * 0.1 for key, dim in obs_dims.items()}
    features = np.concatenate(list(obs.values()), axis=1)
    mixing = np.random.default_rng(0).normal(size=(features.shape[1], ACTION_DIM))
    actions = np.tanh(features @ mixing + 0.1 * rng.normal(size=(length, ACTION_DIM)))
    dones = np.zeros(length, dtype=np.int64)
    dones[-1] = 1
    return Demonstration(actions, obs, rng.normal(size=(length, 4)), dones.astype(float), dones, obs, "<mujoco/>")


def write_toy_dataset(
    path: Path,
    lengths: Sequence[int] = (30, 17, 25, 9),
    env_args: dict[str, Any] | None = None,
    obs_dims: dict[str, int] = OBS_DIMS,
    seed: int = 0,
) -> Path:
    """A Lift file; the last demonstration is the validation split."""
    demonstrations = [demonstration(length, seed + i, obs_dims) for i, length in enumerate(lengths)]
    names = [f"demo_{i}" for i in range(len(lengths))]
    masks = {"train": names[:-1], "valid": names[-1:]}
    write_dataset(path, demonstrations, env_args or default_env_args("lift"), masks)
    return path


def fit_line(folder: Path, data: Path, **flags: object) -> list[str]:
    """`fit` on the quickstart's config with a tiny network, no rollouts; flags are given as section__name=value."""
    settings: dict[str, object] = {
        "data__path": data,
        "data__task": "lift",
        "data__obs_keys": json.dumps(list(OBS_DIMS)),
        "data__batch_size": 8,
        "model__network__init_args__hidden_dims": "[16]",
        "model__network__init_args__time_dim": 8,
        "model__warmup_steps": 0,
        "trainer__accelerator": "cpu",
        "trainer__max_epochs": 3,
        "trainer__logger": "false",
        "trainer__default_root_dir": folder,
        "trainer__check_val_every_n_epoch": 2,
        "trainer__enable_progress_bar": "false",
        "rollout__every_n_epochs": 0,
        "best__dirpath": folder,
        "last__every_n_epochs": 1,
        "report": "false",  # half a second of drawing
    }
    words = [f"--{name.replace('__', '.')}={value}" for name, value in (settings | flags).items()]
    return ["fit", "--config", str(ROOT / "configs/bc_quickstart.yaml"), *words]


def training_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor that training goes on from: weights, average, normalisers, optimiser moments and counters."""
    content = torch.load(checkpoint, weights_only=True)
    state = dict(content["state_dict"])
    for number, optimizer in enumerate(content["optimizer_states"]):
        for index, values in optimizer["state"].items():
            state |= {f"optimizer{number}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
        state |= {f"optimizer{number}.lr": torch.tensor(optimizer["param_groups"][0]["lr"], dtype=torch.float64)}
    state["global_step"] = torch.tensor(content["global_step"])
    state["epoch"] = torch.tensor(content["epoch"])
    return state


def assert_same_state(left: Path, right: Path) -> None:
    """Bit for bit."""
    a, b = training_state(left), training_state(right)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{left} and {right} differ in {different}"


@dataclass
class Run:
    """A command line in a process of its own."""

    server: "ForkServer"
    pid: int
    output: Path
    errors: Path
    ended: int | None = None

    def wait(self) -> int:
        """Exit status, negative for a signal."""
        if self.ended is None:
            self.ended = self.server.ask({"wait": self.pid})
        return self.ended

    def kill(self, signum: int) -> None:
        os.kill(self.pid, signum)

    @property
    def stderr(self) -> str:
        return self.errors.read_text()


class ForkServer:
    """Imports the training command once; each `cli.py` line then runs in a fork of that process, in milliseconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, args: Sequence[str], env: dict[str, str] | None = None, before: str = "") -> Run:
        """Start ``python cli.py *args``; ``before`` is Python code that runs first, such as setting a limit."""
        self.count += 1
        output, errors = self.folder / f"{self.count}.out", self.folder / f"{self.count}.err"
        question = {"args": list(args), "env": env or {}, "before": before, "out": str(output), "err": str(errors)}
        return Run(self, self.ask(question), output, errors)

    def run(self, args: Sequence[str], env: dict[str, str] | None = None, before: str = "") -> tuple[int, str]:
        """Exit status and stderr."""
        run = self.start(args, env, before)
        return run.wait(), run.stderr

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


SERVER = """
import gc, json, os, sys, traceback
import torch
torch.set_num_threads(1)
import cli, commands.train, commands.export, commands.evaluate, commands.record
import torch.utils.tensorboard  # every line's parser looks at its logger
from commands.front_door import run
gc.freeze()  # what is imported is never garbage

for line in sys.stdin:
    question = json.loads(line)
    if "wait" in question:
        print(os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    for fd, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(question[name], os.O_WRONLY | os.O_CREAT, 0o644), fd)
    sys.stdin = open(os.devnull)
    os.environ.update(question["env"])
    sys.argv = ["cli.py", *question["args"]]
    status = 1
    try:
        exec(question["before"])
        status = run(cli.COMMANDS, question["args"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
"""


def wait_for(path: Path, seconds: float = 60) -> None:
    """Until ``path`` exists."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)
