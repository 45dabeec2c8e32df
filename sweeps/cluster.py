"""Plays a plan on Ray: each run as a task, which Ray starts once the runs before it are done and its CPUs are free."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from envs.pool import available_cpus
from sweeps.attempt import (
    STOP,
    RunDiedError,
    RunLockedError,
    RunRefusedError,
    attempt,
    begin_again,
    config_hashes,
    is_finished,
    read_record,
)
from sweeps.plan import PlannedRun

State = Literal["waiting", "running", "finished", "failed", "skipped"]
Tell = Callable[[PlannedRun, State, str], None]
SECONDS_BETWEEN_LOOKS = 1.0
# Tasks here pass nothing around; Ray's own choice is a third of the memory. This is the least that it accepts.
OBJECT_STORE = 80 * 1024**2


def play(runs: Mapping[str, PlannedRun], retries: int, tell: Tell) -> dict[str, State]:
    """Carry out every run that is not finished; the state of each at the end.

    On the Ray cluster of RAY_ADDRESS, or else on this machine's CPUs and GPUs. A cluster's machines need the same
    files under the same paths: the environment, this checkout, the sweep's folder.

    Args:
        runs: by name, those that are waited for first.
        retries: further attempts at a run whose command or worker died.
        tell: is told of every change of a run's state.

    Raises:
        UserError: a run began with another line, or needs more than this machine has; or Ray is missing.
        KeyboardInterrupt: from Ctrl-C, once the runs have saved and ended.
    """
    states = states_at_start(runs)
    for name, state in states.items():
        if state == "finished":
            tell(runs[name], state, "before")
    if all(state == "finished" for state in states.values()):
        return states
    ray = _connect([run for name, run in runs.items() if states[name] != "finished"])
    tasks: dict[Any, str] = {}
    try:
        begun = ray.remote(attempt)
        futures: dict[str, Any] = {}
        for name, run in runs.items():
            if states[name] != "finished":
                options = {"num_cpus": run.cpus, "num_gpus": run.gpus, "name": name}
                task = begun.options(**options, max_retries=retries, retry_exceptions=[RunDiedError])
                earlier = [futures[other] for other in run.after if other in futures]
                futures[name] = task.remote(run, os.getcwd(), os.environ.get("OMP_NUM_THREADS"), *earlier)
        tasks = {future: name for name, future in futures.items()}
        with _asked_to_stop() as asked:
            try:
                _watch(ray, tasks, runs, states, tell, asked)
            except KeyboardInterrupt:
                _stop(ray, tasks, runs)
                raise
    finally:
        ray.shutdown()
    return states


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a batch system's SIGTERM came; the second one raises KeyboardInterrupt.

    An exception that a handler raises inside Ray's compiled code may be lost, and Ray's own handler of SIGTERM ends
    this process at once.
    """
    came: list[int] = []

    def note(signum: int, frame: object) -> None:
        came.append(signum)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler or signal.SIG_DFL)


def states_at_start(runs: Mapping[str, PlannedRun]) -> dict[str, State]:
    """Which runs are finished, and which wait.

    Raises:
        UserError: a run began with another line or config.
    """
    states: dict[str, State] = {}
    for name, run in runs.items():
        record = read_record(run.folder)
        if record is not None and record.line != run.line:
            raise UserError(
                f"{run.folder} was begun with another line:\n  {record.line}\nThe sweep now says:\n  {run.line}\n"
                "Delete the folder to run it anew, or give the sweep another --output."
            )
        now = config_hashes(run)
        if record is not None and (changed := [path for path, sha in record.configs.items() if now.get(path) != sha]):
            raise UserError(
                f"{run.folder} was begun with another {changed[0]} than there is now. Delete the folder to run it "
                "anew, or give the sweep another --output."
            )
        done = is_finished(run) and all(states[other] == "finished" for other in run.after)
        states[name] = "finished" if done else "waiting"
        (run.folder / STOP).unlink(missing_ok=True)  # of a sweep that was killed while it stopped
        if not done:
            begin_again(run)
    return states


def _connect(runs: list[PlannedRun]) -> Any:
    try:
        # Read at import. Ray would report to its makers, run all at nice 15, and show every GPU to a run that has none.
        for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):
            os.environ.setdefault(name, "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        import ray
    except ImportError as error:
        raise UserError("sweep needs Ray, which is not installed: pip install '.[sweep]'") from error
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except ConnectionError as error:
            raise UserError(f"RAY_ADDRESS is {address}, where no Ray cluster answers: {error}") from error
        return ray
    cpus = available_cpus()
    greediest = max(runs, key=lambda run: run.cpus)
    if greediest.cpus > cpus:
        raise UserError(
            f"a run of steps.{greediest.step} asks for {greediest.cpus} CPUs, and this machine gives {cpus}: lower "
            "its `cpus`"
        )
    _start(ray, cpus)
    gpus = ray.cluster_resources().get("GPU", 0)
    if (greediest := max(runs, key=lambda run: run.gpus)).gpus > gpus:
        ray.shutdown()
        raise UserError(
            f"a run of steps.{greediest.step} asks for {greediest.gpus:g} GPUs, and Ray finds {gpus:g} here: lower "
            "its `gpus`"
        )
    return ray


def _start(ray: Any, cpus: int) -> None:
    """Start Ray's processes here; they end with this one. On a busy machine they may take longer than Ray waits."""
    for last in (False, False, True):
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=cpus,
                object_store_memory=OBJECT_STORE,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
            return
        except Exception as error:  # Ray raises no narrower one
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if last:
                raise UserError(f"Ray does not start, at three attempts: {error} Is this machine very busy?") from error


def _watch(
    ray: Any,
    tasks: dict[Any, str],
    runs: Mapping[str, PlannedRun],
    states: dict[str, State],
    tell: Tell,
    asked_to_stop: Callable[[], bool],
) -> None:
    """Until every task has ended: tell what becomes of the runs, and note it in ``states``.

    Raises:
        KeyboardInterrupt: it was asked to stop.
    """
    attempts = {name: _attempts(runs[name].folder) for name in tasks.values()}
    pending = dict(tasks)
    while pending:
        done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=SECONDS_BETWEEN_LOOKS)
        if asked_to_stop():
            raise KeyboardInterrupt
        for name in pending.values():
            if (made := _attempts(runs[name].folder)) > attempts[name]:
                record = read_record(runs[name].folder)
                resumed = record is not None and record.starts[-1]["resumed"]
                attempts[name], states[name] = made, "running"
                tell(runs[name], "running", f"attempt {made}" * (made > 1) + ", from its own state" * resumed)
        for future in done:
            name = pending.pop(future)
            states[name], why = _outcome(ray, future, runs[name], states)
            tell(runs[name], states[name], why)


def _outcome(ray: Any, future: Any, run: PlannedRun, states: Mapping[str, State]) -> tuple[State, str]:
    try:
        ray.get(future)
    except ray.exceptions.RayError as error:
        broken = [other for other in run.after if states[other] in ("failed", "skipped")]
        if broken:
            return "skipped", f"after {broken[0]}"
        if isinstance(error, ray.exceptions.WorkerCrashedError):
            return "failed", "its worker died, at every attempt"
        whys = {RunRefusedError: "refused, its log says why", RunLockedError: "another run is in its folder"}
        return "failed", whys.get(type(getattr(error, "cause", error)), "at every attempt")
    record = read_record(run.folder)
    return "finished", "" if record is None else f"{record.seconds:.0f} s"


def _attempts(folder: Path) -> int:
    record = read_record(folder)
    return 0 if record is None else len(record.starts)


def _stop(ray: Any, tasks: Mapping[Any, str], runs: Mapping[str, PlannedRun]) -> None:
    """Ask the running commands to save, and wait until they have ended; a second Ctrl-C does not wait."""
    for future in reversed(list(tasks)):  # those that wait for others first
        ray.cancel(future, force=False, recursive=False)
    asked: set[Path] = set()
    begun = time.monotonic()
    _, left = ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
    try:
        while left and time.monotonic() - begun < 90:
            for folder in (runs[tasks[future]].folder for future in left):
                if folder.is_dir():  # it has begun, if only this moment
                    asked.add(folder / STOP)
                    (folder / STOP).touch()
            _, left = ray.wait(left, num_returns=len(left), timeout=SECONDS_BETWEEN_LOOKS)
    finally:
        for file in asked:
            file.unlink(missing_ok=True)
