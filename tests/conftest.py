"""Fixtures that several files share."""

import os
from collections.abc import Iterator

import pytest
import torch

from sweeps.attempt import free_cpus
from tests.training_toy import ForkServer

# The networks of the tests are so small that a second thread costs more than it brings, most of all on a busy machine.
torch.set_num_threads(1)
# Tests ask what a compiled network computes, not how fast. Without the C++ compiler's optimiser, vectors and
# a pool of processes that import torch, torch.compile costs half. Read at the first compilation, by forks as well.
os.environ |= {"TORCHINDUCTOR_DEBUG_COMPILE": "1", "TORCHINDUCTOR_VEC_ISA_OK": "0"}
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def one_cpu() -> Iterator[None]:
    """A pool starts a worker per CPU, which costs more than it plays here; tests of several workers say how many.

    Two runs of the tests beside one another take different CPUs, where there are as many and /tmp is the same.
    """
    with free_cpus(1) as cpus:
        if cpus:
            os.sched_setaffinity(0, cpus)
        yield


@pytest.fixture(scope="session")
def cli_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Runs `cli.py` lines in forks of a process that has Lightning imported."""
    server = ForkServer(tmp_path_factory.mktemp("cli"))
    yield server
    server.close()
