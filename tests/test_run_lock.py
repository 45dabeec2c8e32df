"""A folder of a run belongs to one process, until that process has ended, however it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.lock import run_lock
from tests.training_toy import ROOT

HOLD = """
import sys
from common.lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """A process that holds ``folder`` until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def refused(folder: Path) -> str:
    """What the second to come is told."""
    with pytest.raises(UserError) as refusal, run_lock(folder):
        pass
    return str(refusal.value)


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with hold(folder) as first:
        assert f"{folder} is in use by another run (process {first.pid} on " in refused(folder)
        first.kill()
        first.wait()
        with run_lock(folder):
            assert f"process {os.getpid()} on " in refused(folder)
    with run_lock(folder):
        pass


def test_programs_that_a_run_starts_do_not_keep_its_lock(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with run_lock(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"cannot write {tmp_path}/file/run/.lock: Not a directory. Choose" in refused(tmp_path / "file/run")
