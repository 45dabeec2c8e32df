"""Fetching a published data set: resumable, checked, and put in place only when whole."""

import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from common.errors import UserError
from datamodules.hdf5 import DatasetFile

BLOCK = 1 << 18  # bytes
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # connections in a row that bring nothing before giving up
PAUSE = 0.5  # seconds before connecting again, doubled each time
TRANSIENT = (429, 500, 502, 503, 504)  # HTTP states in which a server may be later asked again


def registered_kind(task: str, dataset_type: str) -> str:
    """What robomimic's registry calls the low-dim file with sparse rewards: "low_dim" or, of "mg", "low_dim_sparse".

    Raises:
        UserError: robomimic registers no such data set.
    """
    from robomimic import DATASET_REGISTRY

    kinds = DATASET_REGISTRY.get(task, {}).get(dataset_type, {})
    kind = next((kind for kind in ("low_dim", "low_dim_sparse") if kind in kinds), None)
    if kind is None:
        raise UserError(f"robomimic registers no low-dim data set '{dataset_type}' of task '{task}'.")
    return kind


def official_url(task: str, dataset_type: str) -> str:
    """URL of Robomimic's low-dim v141 file, from its own registry.

    Raises:
        UserError: robomimic registers no such data set.
    """
    from robomimic import DATASET_REGISTRY

    kind = registered_kind(task, dataset_type)
    return DATASET_REGISTRY[task][dataset_type][kind]["url"]


def partial_path(url: str, output: Path) -> Path:
    """Where an unfinished download of this URL waits for being resumed: beside the output, one place per URL."""
    return output.with_name(f".{output.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.partial")


def fetch(url: str, output: Path) -> None:
    """Download ``url`` to ``output``, going on where an earlier attempt stopped.

    The bytes collect in a partial file, which stays when the connection is lost for good, so that the same command, run
    again, resumes. Once whole, it must open as a Robomimic file; then it is renamed into place.

    Raises:
        UserError: the address is wrong, the server refuses, the connection is lost for good, the path cannot be
            written, or what arrived is no Robomimic file.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"cannot download {url!r}. Expected an address that starts with http:// or https://.")
    partial = partial_path(url, output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            _receive_all(url, file, output.name)
            os.fsync(file.fileno())
        try:
            check_dataset(url, partial)
        except UserError:
            partial.unlink()
            raise
        os.replace(partial, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}. Choose another --output.") from error


def _receive_all(url: str, file: BinaryIO, name: str) -> None:
    """Connect as often as it takes, as long as it helps."""
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task(name, total=None)
        fruitless = 0
        while True:
            before = file.seek(0, os.SEEK_END)
            lost = _receive(url, file, lambda done, total: progress.update(bar, completed=done, total=total))
            if lost is None:
                return
            fruitless = 0 if file.tell() > before else fruitless + 1
            if fruitless == ATTEMPTS:
                raise UserError(
                    f"{url}: {lost}, {ATTEMPTS} times in a row. Run the same command again to resume after"
                    f" {file.tell():,} bytes, or name a mirror with --url."
                )
            time.sleep(PAUSE * 2**fruitless)


def _receive(url: str, file: BinaryIO, report: Callable[[int, int | None], None]) -> str | None:
    """Append to the file what it still lacks, over one connection.

    Returns:
        None when the file is whole, else what ended the connection.
    """
    start = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            total = _prepare(response, file, start)
            while block := response.read(BLOCK):
                file.write(block)
                report(file.tell(), total)
    except urllib.error.HTTPError as error:
        return _refused(url, error, file, start)
    except urllib.error.URLError as error:
        return f"no connection ({error.reason})"
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        return f"the connection was lost ({error or type(error).__name__})"
    if total is not None and file.tell() < total:
        return f"the connection ended after {file.tell():,} of {total:,} bytes"
    return None


def _prepare(response: http.client.HTTPResponse, file: BinaryIO, start: int) -> int | None:
    """Make the file end where the response begins; returns the whole length in bytes, None if the server keeps it."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status == http.HTTPStatus.PARTIAL_CONTENT and span is not None and int(span[1]) == start:
        return int(span[2])
    file.truncate(0)
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        raise http.client.HTTPException("the server sent another part than asked for: starting over")
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _refused(url: str, error: urllib.error.HTTPError, file: BinaryIO, start: int) -> str | None:
    """What a state of 400 or more means for the download; see `_receive`."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return None
        file.truncate(0)
        return "the partial file does not fit the server's: starting over"
    if error.code in TRANSIENT:
        return f"the server is out of order (HTTP {error.code} {error.reason})"
    raise UserError(f"{url}: HTTP {error.code} {error.reason}. Check the address, or name a mirror with --url.")


def check_dataset(source: str, path: Path) -> None:
    """Raise `UserError` unless what ``source`` sent is a Robomimic file."""
    try:
        with DatasetFile(path) as file:
            file.obs_dims()
    except UserError as error:
        reason = str(error).replace(str(path), "the file it sent")
        raise UserError(f"{source} sent no whole Robomimic low-dim file: {reason}") from error
