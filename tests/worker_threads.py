"""Workers as threads of the test's process: a pool that starts without importing the simulator once more.

For tests of what a pool is used for. Those of the pool itself start processes. One worker at a time: robosuite 1.4
draws from numpy's global generator.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from threading import Thread

import pytest

from envs import pool
from envs.worker import serve


class WorkerThread(Thread):
    """What a pool asks of a worker's process."""

    def wait(self) -> int:
        self.join()
        return 0

    def poll(self) -> int | None:
        return None if self.is_alive() else 0


def start_thread(first_env: int) -> pool._Worker:
    ours, theirs = socket.socketpair()
    thread = WorkerThread(target=serve, args=(Connection(theirs.detach()),), daemon=True)
    thread.start()
    return pool._Worker(thread, Connection(ours.detach()), first_env)  # type: ignore[arg-type]


@contextmanager
def worker_threads() -> Iterator[None]:
    """Pools made inside have one worker, a thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_start_worker", start_thread)
        patch.setattr(pool, "available_cpus", lambda: 1)
        if "callbacks.rollout_success" in sys.modules:  # which asks for itself
            patch.setattr("callbacks.rollout_success.available_cpus", lambda: 1)
        yield
