"""`download` against a real HTTP server on loopback that drops connections, ignores ranges, or sends rubbish."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from commands.download import download
from common.errors import UserError
from datamodules import download as downloading
from datamodules.demonstrations import Demonstration, write_dataset
from datamodules.download import fetch, official_url, partial_path
from datamodules.hdf5 import DatasetFile


class Server(ThreadingHTTPServer):
    """Serves ``body`` and misbehaves as told; remembers the ranges it was asked for."""

    body: bytes
    drop_after: list[int]  # bytes to send before dropping the connection, for the first requests
    supports_ranges = True
    states: list[int]  # HTTP states to answer with before anything else
    announces_length = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.drop_after, self.states = [], []
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/lift/ph/low_dim_v141.hdf5"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, body = self.server, self.server.body
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.states:
            self.send_error(server.states.pop(0))
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.supports_ranges else 0  # type: ignore[index]
        if start >= len(body) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.announces_length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        limit = server.drop_after.pop(0) if server.drop_after else len(body)
        self.wfile.write(body[start : start + limit])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small data set's bytes."""
    path = tmp_path_factory.mktemp("source") / "demos.hdf5"
    demonstration = Demonstration(
        actions=np.zeros((500, 7)),
        states=np.zeros((500, 32)),
        rewards=np.zeros(500),
        dones=np.zeros(500, dtype=np.int64),
        obs={"object": np.random.default_rng(0).normal(size=(500, 10))},
        model_file="<mujoco/>",
    )
    write_dataset(path, [demonstration], {"env_name": "Lift", "env_kwargs": {}}, {})
    return path.read_bytes()


@pytest.fixture
def server(body: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloading, "PAUSE", 0.001)
    with Server(body) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_download(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "lift.hdf5"
    download("lift", "ph", output, server.url)
    assert output.read_bytes() == server.body
    assert files_in(output.parent) == ["lift.hdf5"]
    assert "1 demonstrations" in " ".join(capsys.readouterr().out.split())


def test_a_dropped_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.drop_after = [10_000, 20_000]
    fetch(server.url, tmp_path / "lift.hdf5")
    assert server.asked == [None, "bytes=10000-", "bytes=30000-"]
    assert (tmp_path / "lift.hdf5").read_bytes() == server.body


def test_a_later_command_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "lift.hdf5"
    server.drop_after = [10_000] + [0] * downloading.ATTEMPTS
    with pytest.raises(UserError, match=r"resume after 10,000 bytes"):
        fetch(server.url, output)
    assert not output.exists()
    assert partial_path(server.url, output).stat().st_size == 10_000
    fetch(server.url, output)
    assert server.asked[-1] == "bytes=10000-"
    assert output.read_bytes() == server.body
    assert files_in(tmp_path) == ["lift.hdf5"]


def test_a_server_without_ranges_is_downloaded_from_the_start_again(server: Server, tmp_path: Path) -> None:
    server.supports_ranges = False
    server.drop_after = [10_000]
    fetch(server.url, tmp_path / "lift.hdf5")
    assert (tmp_path / "lift.hdf5").read_bytes() == server.body


def test_a_partial_file_that_is_already_whole(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "lift.hdf5"
    partial_path(server.url, output).write_bytes(server.body)
    fetch(server.url, output)
    assert output.read_bytes() == server.body


def test_a_partial_file_longer_than_the_servers_is_dropped(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "lift.hdf5"
    partial_path(server.url, output).write_bytes(server.body + b"more")
    fetch(server.url, output)
    assert output.read_bytes() == server.body


def test_partial_files_of_two_addresses_do_not_mix(tmp_path: Path) -> None:
    output = tmp_path / "lift.hdf5"
    assert partial_path("http://a/x", output) != partial_path("http://b/x", output)


def test_a_server_that_is_briefly_out_of_order(server: Server, tmp_path: Path) -> None:
    server.states = [503, 503]
    fetch(server.url, tmp_path / "lift.hdf5")
    assert (tmp_path / "lift.hdf5").read_bytes() == server.body


def test_not_found_says_so_at_once(server: Server, tmp_path: Path) -> None:
    server.states = [404]
    with pytest.raises(UserError, match=r"HTTP 404.*--url"):
        fetch(server.url, tmp_path / "lift.hdf5")
    assert len(server.asked) == 1


def test_nobody_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no connection"):
        fetch("http://127.0.0.1:9/x.hdf5", tmp_path / "lift.hdf5")


def test_a_body_that_is_no_data_set(server: Server, tmp_path: Path) -> None:
    server.body = b"<html>please log in</html>"
    with pytest.raises(UserError, match="no whole Robomimic low-dim file"):
        fetch(server.url, tmp_path / "lift.hdf5")
    assert files_in(tmp_path) == []


def test_a_body_cut_short_by_a_server_that_tells_no_length(server: Server, tmp_path: Path) -> None:
    server.announces_length = False
    server.drop_after = [len(server.body) - 100]
    with pytest.raises(UserError, match="truncated"):
        fetch(server.url, tmp_path / "lift.hdf5")
    assert files_in(tmp_path) == []


def test_a_failed_download_leaves_the_old_file(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "lift.hdf5"
    output.write_text("old")
    server.body = b"rubbish"
    with pytest.raises(UserError):
        fetch(server.url, output)
    assert output.read_text() == "old"


def test_a_sound_file_is_kept_and_a_broken_one_replaced(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "lift.hdf5"
    output.write_bytes(server.body[:1000])
    download("lift", "ph", output, server.url)
    assert output.read_bytes() == server.body
    download("lift", "ph", output, server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "low_dim.hdf5"])
def test_only_http_addresses(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="http"):
        fetch(url, tmp_path / "x.hdf5")


def test_an_output_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        fetch(server.url, tmp_path / "file" / "lift.hdf5")


@pytest.mark.parametrize("task", ["lift", "can", "square"])
@pytest.mark.parametrize("dataset_type", ["ph", "mh"])
def test_the_registry_knows_the_official_files(task: str, dataset_type: str) -> None:
    assert official_url(task, dataset_type).endswith(f"/{task}/{dataset_type}/low_dim_v141.hdf5")


def test_an_unregistered_data_set() -> None:
    with pytest.raises(UserError, match="registers no"):
        official_url("lift", "best")


def test_the_downloaded_file_opens(server: Server, tmp_path: Path) -> None:
    fetch(server.url, tmp_path / "lift.hdf5")
    with DatasetFile(tmp_path / "lift.hdf5") as file:
        assert len(file.read("demo_0")) == 500
