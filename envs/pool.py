"""Environments in worker processes: one message per action chunk, answers as they come."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from common.errors import UserError
from envs.messages import Capture, EnvSpec, Failure, Reply, Request

__all__ = ["Capture", "EnvPool", "EnvSpec", "Reply", "WorkerError", "available_cpus"]

_NOTHING = Capture()
# Deciding for several environments at once costs less per environment (benchmarks/simulation.py), and a further
# environment in a worker costs 0.1 s and 70 MB. Beyond 32 the one deciding process is what limits.
_ENVS_PER_WORKER = 8
_MOST_ENVS = 32


class WorkerError(RuntimeError):
    """A worker process raised (the message holds its own traceback) or died (its exit status)."""


def available_cpus() -> int:
    """CPUs that this process may use: its affinity mask, within its control group's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, round(int(quota) / int(period))))
    return cpus


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    first_env: int


class EnvPool:
    """``n_envs`` environments, spread over worker processes; a context manager.

    ``reset``, ``reset_to``, ``step`` and ``call`` only send; ``wait`` returns the answers that have come. Each
    environment has at most one request under way. Workers are fresh interpreters: they import neither torch nor the
    program's main module, ignore Ctrl-C, and end when this process does, however it ends.
    """

    def __init__(
        self, spec: EnvSpec, n_envs: int | None = None, n_workers: int | None = None, episodes: int | None = None
    ) -> None:
        """
        Args:
            spec: what to simulate.
            n_envs: number of environments; None: eight per process, at most 32.
            n_workers: number of processes, at most one per environment; None: one per CPU that this process may use.
            episodes: how many will be played; environments beyond them would have nothing to do, and are not built.

        Raises:
            UserError: the environments cannot be built as asked.
            WorkerError: a worker failed otherwise.
        """
        if n_envs is not None and n_envs < 1:
            raise UserError(f"n_envs is {n_envs}: expected at least 1.")
        most_workers = n_workers or available_cpus()
        self.spec = spec
        self.n_envs = n_envs if n_envs is not None else min(_ENVS_PER_WORKER * most_workers, _MOST_ENVS)
        if episodes is not None:
            self.n_envs = max(1, min(self.n_envs, episodes))
        workers = self.n_workers = min(most_workers, self.n_envs)
        self._pending: set[int] = set()
        self._workers: list[_Worker] = []
        self._of_env: list[_Worker] = []
        try:
            for number in range(workers):
                share = self.n_envs // workers + (number < self.n_envs % workers)
                worker = _start_worker(len(self._of_env))
                self._workers.append(worker)
                self._of_env += [worker] * share
                worker.connection.send((spec, share))
            self._pending = set(range(self.n_envs))
            descriptions = self.drain()
        except BaseException:
            self.close()
            raise
        self.obs_dims: dict[str, int]
        self.action_dim: int
        self.obs_dims, self.action_dim = descriptions[0].value
        self.obs_dim = sum(self.obs_dims.values())

    def reset(self, i: int, seed: int, capture: Capture = _NOTHING) -> None:
        """Begin an episode in environment ``i`` at robosuite's initial state for ``seed``."""
        self._send(i, "reset", seed, capture)

    def reset_to(self, i: int, state: np.ndarray, model_file: str | None, capture: Capture = _NOTHING) -> None:
        """Begin an episode in environment ``i`` at ``state`` (S,), see ``RobosuiteEnv.reset_to``."""
        self._send(i, "reset_to", state, model_file, capture)

    def step(self, i: int, actions: np.ndarray, capture: Capture = _NOTHING) -> None:
        """Execute a chunk of ``actions`` (pred_horizon, action_dim) in environment ``i``."""
        self._send(i, "step", actions, capture)

    def call(self, i: int, name: str, *args: Any) -> None:
        """Call a method of environment ``i``'s ``RobosuiteEnv``; the reply's ``value`` is what it returns."""
        self._send(i, "call", name, args)

    def _send(self, i: int, method: str, *args: Any) -> None:
        if i in self._pending:
            raise RuntimeError(f"environment {i} has not answered its last request: call wait() first")
        worker = self._of_env[i]
        try:
            worker.connection.send(Request(i - worker.first_env, method, args))
        except (BrokenPipeError, ConnectionResetError):
            raise self._death(worker) from None
        self._pending.add(i)

    def wait(self) -> list[tuple[int, Reply]]:
        """The environments that have answered, with their replies: at least one, in the order of arrival.

        Raises:
            UserError: a worker raised one.
            WorkerError: a worker raised another exception, or died.
        """
        if not self._pending:
            raise RuntimeError("no request is under way")
        answers = []
        for connection in wait([worker.connection for worker in self._workers]):
            worker = next(worker for worker in self._workers if worker.connection is connection)
            while worker.connection.poll():
                answers.append(self._receive(worker))
        return answers

    def _receive(self, worker: _Worker) -> tuple[int, Reply]:
        try:
            slot, reply = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death(worker) from None
        i = worker.first_env + slot
        self._pending.discard(i)
        if isinstance(reply, Failure):
            if reply.user_message is not None:
                raise UserError(reply.user_message)
            raise WorkerError(f"environment {i} failed in its worker process:\n{reply.traceback}")
        return i, reply

    def _death(self, worker: _Worker) -> WorkerError:
        status = worker.process.wait()
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        first = worker.first_env
        envs = [i for i, owner in enumerate(self._of_env) if owner is worker]
        return WorkerError(f"the worker process of environments {first} to {envs[-1]} {how}")

    def drain(self) -> dict[int, Reply]:
        """Wait for every request under way; the replies by environment."""
        replies: dict[int, Reply] = {}
        while self._pending:
            replies.update(self.wait())
        return replies

    def discard(self) -> None:
        """Wait for the requests under way and drop their answers, whatever they are; the pool is ready for new ones."""
        while self._pending:
            try:
                self.wait()
            except (UserError, WorkerError):
                if any(worker.process.poll() is not None for worker in self._workers):
                    return

    def close(self) -> None:
        """End the workers; one in the middle of a chunk finishes it first."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.wait()
        self._workers, self._pending = [], set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start_worker(first_env: int) -> _Worker:
    """A fresh interpreter at the other end of a socket.

    Not multiprocessing's spawn: that imports the parent's main module in the child, and with it whatever that imports,
    torch included.
    """
    ours, theirs = socket.socketpair()
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    root = str(Path(__file__).resolve().parent.parent)
    # Behind the standard library, as in cli.py: a copy.py or json.py beside it is none of ours, nor to be run.
    begin = (
        f"import os, sys; sys.path.insert(sys.path.index(os.path.dirname(os.__file__)) + 1, {root!r}); "
        "from envs.worker import main; main()"
    )
    with theirs:
        process = subprocess.Popen(
            # -P: nor one in the working directory.
            [sys.executable, "-P", "-c", begin, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **one_thread},
            stdin=subprocess.DEVNULL,
            process_group=0,  # out of reach of the terminal's Ctrl-C from the first moment on
        )
    return _Worker(process, Connection(ours.detach()), first_env)
