"""Fixtures that several files share."""

from collections.abc import Iterator

import pytest
import torch

from tests.training_toy import ForkServer

# The networks of the tests are so small that a second thread costs more than it brings, most of all on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cli_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Runs `cli.py` lines in forks of a process that has Lightning imported."""
    server = ForkServer(tmp_path_factory.mktemp("cli"))
    yield server
    server.close()
