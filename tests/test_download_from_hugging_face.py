"""`download --version v15` against a loopback server that speaks what huggingface_hub asks for."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE as CHUNK

from common.errors import UserError
from datamodules.hub import hub_filename
from tests.training_toy import ROOT, write_toy_dataset

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATH = "/datasets/robomimic/robomimic_datasets/resolve/main/v1.5/can/mg/low_dim_sparse_v15.hdf5"


class Hub(ThreadingHTTPServer):
    """Serves one large file with its digest; breaks off the first answers after so many bytes."""

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.sha256 = body, hashlib.sha256(body).hexdigest()
        self.drop_after: list[int] = []
        self.asked: list[str | None] = []  # ranges, one for each GET


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._begin(0)

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        if self.path == PATH:
            self.server.asked.append(asked)
        match = re.fullmatch(r"bytes=(\d+)-\d*", asked or "")
        start = int(match[1]) if match else 0
        if self._begin(start):
            limit = self.server.drop_after.pop(0) if self.server.drop_after else len(self.server.body)
            self.wfile.write(self.server.body[start : start + limit])
            self.close_connection = True

    def _begin(self, start: int) -> bool:
        if self.path != PATH:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        size = len(self.server.body)
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.server.sha256}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        return True

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    path = write_toy_dataset(tmp_path / "served.hdf5", lengths=[100] * 20)
    with h5py.File(path, "r+") as file:
        file["padding"] = np.zeros(3 * CHUNK, np.uint8)
    with Hub(path.read_bytes()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(hub: Hub, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    mirror = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(folder / "home")}
    line = [sys.executable, str(ROOT / "cli.py"), "download", "--dataset_type", "mg", "--version", "v15", *words]
    return subprocess.run(line, cwd=folder, env=os.environ | mirror, capture_output=True, text=True)


def test_a_download_that_is_broken_off_goes_on_and_ends_whole(hub: Hub, tmp_path: Path) -> None:
    hub.drop_after = [2 * CHUNK + 1000]
    done = run(hub, tmp_path, "--task", "can")
    assert done.returncode == 0, done.stderr
    output = tmp_path / "data/can_mg_v15.hdf5"
    assert output.read_bytes() == hub.body
    assert f"20 demonstrations, sha256 {hub.sha256}" in " ".join(done.stdout.split())
    assert hub.asked[0] is None
    assert hub.asked[1] == f"bytes={2 * CHUNK}-", "what had come is not asked for again"
    before = len(hub.asked)
    assert "is there already" in run(hub, tmp_path, "--task", "can").stdout
    output.unlink()
    assert run(hub, tmp_path, "--task", "can", "--output", "again.hdf5").returncode == 0
    assert (tmp_path / "again.hdf5").read_bytes() == hub.body
    assert len(hub.asked) == before, "the second copy comes from the cache"


@pytest.mark.parametrize("served", ["other bytes", "no data set"])
def test_what_is_not_the_data_set_is_refused_and_forgotten(hub: Hub, tmp_path: Path, served: str) -> None:
    sound = hub.body, hub.sha256
    hub.body = b"\0" * len(hub.body)
    if served == "no data set":
        hub.sha256 = hashlib.sha256(hub.body).hexdigest()
    refused = run(hub, tmp_path, "--task", "can")
    assert refused.returncode == 2
    assert ("arrived damaged" if served == "other bytes" else "no whole Robomimic low-dim file") in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data/can_mg_v15.hdf5").exists()
    hub.body, hub.sha256 = sound
    assert run(hub, tmp_path, "--task", "can").returncode == 0


def test_what_cannot_be_fetched_is_one_message(hub: Hub, tmp_path: Path) -> None:
    missing = run(hub, tmp_path, "--task", "lift")
    hub.shutdown()
    hub.server_close()
    unreachable = run(hub, tmp_path, "--task", "can")
    for ended in (missing, unreachable):
        assert ended.returncode == 2
        assert "error: cannot fetch v1.5/" in ended.stderr
        assert "HF_ENDPOINT" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_names_of_the_files() -> None:
    assert hub_filename("square", "ph") == "v1.5/square/ph/low_dim_v15.hdf5"
    assert hub_filename("lift", "mg") == "v1.5/lift/mg/low_dim_sparse_v15.hdf5"
    with pytest.raises(UserError, match="registers no low-dim data set 'paired' of task 'lift'"):
        hub_filename("lift", "paired")
