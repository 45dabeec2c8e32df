"""Compiled code has a place to be cached, or a private one is made."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from envs.numba_cache import numba_cache
from tests.training_toy import ROOT

READ_ONLY = Path("/proc/nowhere")  # not even root may write here


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_numbas_own_places_serve_where_they_can_be_written(temporary: Path) -> None:
    assert numba_cache([temporary, READ_ONLY], temporary / "home" / ".cache") is None
    assert numba_cache([temporary, temporary / "x"], READ_ONLY) is None
    assert not list(temporary.iterdir())


def test_a_read_only_checkout_and_home_get_a_folder_that_only_this_user_may_touch(temporary: Path) -> None:
    folder = numba_cache([temporary, READ_ONLY], READ_ONLY)
    assert folder is not None
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert numba_cache([READ_ONLY], READ_ONLY) == folder, "compiled once, not at every run"


@pytest.mark.parametrize("planted", ["open to all", "a link"])
def test_a_folder_that_others_can_write_is_not_read_from(temporary: Path, planted: str) -> None:
    folder = numba_cache([READ_ONLY], READ_ONLY)
    assert folder is not None
    if planted == "a link":
        folder.rename(temporary / "theirs")
        folder.symlink_to(temporary / "theirs")
    else:
        folder.chmod(0o777)
    assert numba_cache([READ_ONLY], READ_ONLY) not in (None, folder)


def test_robosuite_is_imported_with_that_cache(tmp_path: Path) -> None:
    # As where checkout, packages and home are read-only, which for root nothing is.
    code = """
import os
from pathlib import Path
import envs.numba_cache as module
module._is_writable = lambda folder: False
import envs.osc_kernel, numba
print(numba.config.CACHE_DIR)
"""
    env = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == tmp_path
