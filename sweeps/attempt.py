"""One attempt at one run: the command line in a process of its own, and the record of how it went."""

import fcntl
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.files import atomic_path, sha256_of
from sweeps.plan import PlannedRun, configs_of

ROOT = Path(__file__).resolve().parents[1]
RECORD, LOG = "run.json", "log.txt"
STOP = ".stop"  # a run is asked to end while this file is in its folder; Ray's own interruption gets lost now and then
MISTAKE, IN_USE = 2, 75  # exit statuses: no second attempt at once would go better
SECONDS_TO_SAVE = 60.0  # between the request to stop and the kill


class RunDiedError(Exception):
    """The command ended otherwise than by finishing; another attempt may go on from what it saved."""


class RunRefusedError(Exception):
    """The command refused its line."""


class RunLockedError(Exception):
    """Another run holds the folder."""


@dataclass
class Record:
    """What the sweep knows of a run, in ``run.json`` of its folder.

    Args:
        line: the command line, as a person would type it; --resume left out.
        starts: of each attempt: when it began, where, in which Ray worker, whether it went on from a state, and where
            known its seconds and exit status.
        finished: the command succeeded.
        configs: SHA-256 of the configs that the line names, as they were at the first attempt.
        made: what the run wrote last, as `_state_of` tells it; anything else in its place is somebody's.
    """

    line: str
    starts: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    configs: dict[str, str] = field(default_factory=dict)
    made: str | None = None

    @property
    def seconds(self) -> float:
        """Wall-clock of all attempts; of one that was killed up to its last word in the log."""
        return sum(start.get("seconds", 0.0) for start in self.starts)


def read_record(folder: Path) -> Record | None:
    """The record in ``folder``, None where no attempt was made."""
    path = folder / RECORD
    return Record(**json.loads(path.read_text())) if path.is_file() else None


def config_hashes(run: PlannedRun) -> dict[str, str]:
    """SHA-256 of each config that the run's line names."""
    return {str(path): sha256_of(path) for path in configs_of(run.words)}


def is_finished(run: PlannedRun) -> bool:
    """Whether the run succeeded, and what it made is still there."""
    record = read_record(run.folder)
    return record is not None and record.finished and record.line == run.line and run.product.is_file()


def attempt(run: PlannedRun, workplace: str, threads: str | None, *earlier: None) -> None:
    """Carry out ``run`` unless it is finished, in this process's time.

    Args:
        run: what.
        workplace: the current folder of whoever started the sweep; paths in the line are relative to it.
        threads: their OMP_NUM_THREADS, which Ray would replace.
        earlier: results of the runs that had to come first; Ray waits for them.

    Raises:
        RunDiedError: the command failed or was killed.
        RunRefusedError: it called its line a mistake.
        RunLockedError: another run, such as the same line typed by hand, holds the folder.
        KeyboardInterrupt: the sweep is being stopped; the command was asked to save, and has ended.
    """
    os.chdir(workplace)
    if is_finished(run):
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    record = read_record(run.folder) or Record(run.line, configs=config_hashes(run))
    log = run.folder / LOG
    found = _state_of(run.product)
    if record.starts and "seconds" not in record.starts[-1]:  # the worker was killed, and could not say
        begun = datetime.fromisoformat(record.starts[-1]["begun"]).timestamp()
        record.starts[-1]["seconds"] = max(0.0, log.stat().st_mtime - begun) if log.is_file() else 0.0
    words = [*run.words, *(["--resume"] if has_state(run) else [])]
    if run.command in ("collect", "convert") and found is not None and found == record.made:
        words.append("--overwrite")  # its own, and what it was made of was made anew
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    resumed = "--resume" in words
    record.starts.append({"begun": now, "host": socket.gethostname(), "worker": os.getpid(), "resumed": resumed})
    with _interruptions() as interrupted:
        _write(run.folder, record)
        start = time.monotonic()
        try:
            with log.open("a") as output, free_cpus(run.cpus) as cpus:
                print(f"$ {shlex.join(['python', 'cli.py', *words])}", file=output, flush=True)
                status, stopped = _run(
                    words, cpus, output.fileno(), threads, lambda: interrupted() or (run.folder / STOP).exists()
                )
            record.starts[-1]["status"] = status
            record.finished = status == 0 and run.product.is_file()
            left = _state_of(run.product)
            if left != found and status not in (MISTAKE, IN_USE):  # else it came from elsewhere
                record.made = left
        finally:
            record.starts[-1]["seconds"] = time.monotonic() - start
            _write(run.folder, record)
    if stopped:
        raise KeyboardInterrupt
    if status == MISTAKE:
        raise RunRefusedError(run.name)
    if status == IN_USE:
        raise RunLockedError(run.name)
    if not record.finished:
        raise RunDiedError(f"{run.name}: exit status {status}")


def begin_again(run: PlannedRun) -> None:
    """Take back that ``run`` is finished: what it was made of is made anew."""
    if (record := read_record(run.folder)) is not None and record.finished:
        _write(run.folder, replace(record, finished=False))


def _state_of(file: Path) -> str | None:
    """Tells a file from another that took its place; None where there is none."""
    if not file.is_file():
        return None
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def has_state(run: PlannedRun) -> bool:
    """Whether the folder holds what the command's ``--resume`` goes on from."""
    states = {"fit": "*.ckpt", "dsrl": "sac_last.zip"}
    return run.command in states and any(run.folder.glob(states[run.command]))


def last_words(run: PlannedRun) -> str:
    """The last line that the run printed."""
    log = run.folder / LOG
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


@contextmanager
def free_cpus(count: int) -> Iterator[list[int]]:
    """``count`` of this process's CPUs that no other run on this machine holds; fewer where there are not as many.

    Ray counts CPUs but does not assign them, and a command that sees all of them would use all.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield []
        return
    folder = Path(tempfile.gettempdir()) / f"diffusion-steering-cpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with ExitStack() as held:
        found: list[int] = []
        cpus = sorted(os.sched_getaffinity(0))
        first = random.SystemRandom().randrange(len(cpus))  # what other users hold is not seen
        for cpu in cpus[first:] + cpus[:first]:
            file = (folder / str(cpu)).open("a")
            held.callback(file.close)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            found.append(cpu)
            if len(found) == count:
                break
        yield found  # none: where another user of the machine's Ray holds them, any will do


@contextmanager
def _interruptions() -> Iterator[Callable[[], bool]]:
    """Whether Ray passed the sweep's interruption on; inside, none is raised, which could leave half of anything."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signum, frame: came.append(signum))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)


def _run(
    words: list[str], cpus: list[int], output: int, threads: str | None, asked_to_stop: Callable[[], bool]
) -> tuple[int, bool]:
    """Exit status of ``python cli.py words``, negative for a signal, and whether it was asked to stop."""
    program = [sys.executable, str(ROOT / "cli.py"), *words]
    tie = [sys.executable, "-I", str(ROOT / "sweeps/tied.py"), str(os.getpid()), ",".join(map(str, cpus))]
    # It stays in the worker's process group: Ctrl-C at the terminal does not reach that, and where the worker is killed
    # Ray ends the whole group.
    environment = _environment(os.environ, threads)
    process = subprocess.Popen(
        [*tie, *program], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
    )
    while (status := process.poll()) is None:
        if asked_to_stop():
            process.terminate()
            try:
                return process.wait(SECONDS_TO_SAVE), True
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait(), True
        time.sleep(0.1)
    return status, False


def _environment(environment: Mapping[str, str], threads: str | None) -> dict[str, str]:
    """As of a shell: Ray's worker sets the number of threads, and lets output be buffered."""
    kept = {key: value for key, value in environment.items() if key != "OMP_NUM_THREADS"}
    given = {} if threads is None else {"OMP_NUM_THREADS": threads}
    return {**kept, **given, "PYTHONUNBUFFERED": "1"}


def _write(folder: Path, record: Record) -> None:
    with atomic_path(folder / RECORD) as partial:
        partial.write_text(json.dumps(asdict(record), indent=1) + "\n")
