"""Worker processes: what they import, how they fail, and that none outlives its parent."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from envs.messages import Capture, Reply
from envs.pool import EnvPool, EnvSpec, WorkerError, _start_worker, available_cpus
from envs.tasks import default_env_args

ROOT = Path(__file__).resolve().parents[1]
SPEC = EnvSpec(default_env_args("lift"), pred_horizon=2, horizon=5)
STILL = np.zeros((2, 7))


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvPool]:
    with EnvPool(SPEC, n_envs=8, n_workers=2, episodes=3) as pool:
        yield pool


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie waiting for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 20) -> list[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(is_running, pids)):
        time.sleep(0.05)
    return [pid for pid in pids if is_running(pid)]


def test_every_environment_answers_its_own_request(pool: EnvPool) -> None:
    assert (pool.n_envs, pool.obs_dim, pool.action_dim) == (3, 19, 7)
    for i in range(3):
        pool.reset(i, seed=i)
    by_env = pool.drain()
    assert sorted(by_env) == [0, 1, 2]
    pool.reset(2, seed=0)
    assert np.array_equal(pool.drain()[2].obs, by_env[0].obs)
    assert not np.array_equal(by_env[1].obs, by_env[0].obs)


def test_an_episode_through_the_pool(pool: EnvPool) -> None:
    pool.reset(1, seed=4, capture=Capture(trajectory=True))
    first = pool.drain()[1]
    assert first.model_file is not None
    pool.call(1, "state")
    state = pool.drain()[1].value
    replies: list[Reply] = []
    for _ in range(3):
        pool.step(1, STILL, Capture(trajectory=True))
        replies += pool.drain().values()
    assert [(reply.env_steps, reply.truncated) for reply in replies] == [(2, False), (2, False), (1, True)]
    assert replies[0].trajectory is not None
    assert np.array_equal(replies[0].trajectory.states[0], state)
    assert np.array_equal(replies[0].trajectory.last_observation.astype(np.float32), replies[0].obs)
    pool.reset_to(1, state, first.model_file)
    assert np.array_equal(pool.drain()[1].obs, first.obs)


def test_two_requests_to_one_environment_are_a_mistake(pool: EnvPool) -> None:
    pool.reset(0, seed=0)
    with pytest.raises(RuntimeError, match="has not answered"):
        pool.reset(0, seed=0)
    pool.drain()
    with pytest.raises(RuntimeError, match="no request"):
        pool.wait()


def test_an_exception_comes_with_its_own_traceback_and_the_pool_lives_on(pool: EnvPool) -> None:
    pool.step(0, np.full((2, 7), np.nan))
    with pytest.raises(WorkerError, match="environment 0 failed") as info:
        pool.drain()
    for part in ("robosuite_env.py", "in advance", "ValueError: cannot execute the action"):
        assert part in str(info.value)
    pool.reset(0, seed=0)
    assert len(pool.drain()[0].obs) == 19


def test_a_users_mistake_in_a_worker_is_a_user_error_here(pool: EnvPool) -> None:
    pool.reset_to(0, np.zeros(3), None)
    with pytest.raises(UserError, match="does not fit Lift"):
        pool.drain()
    with pytest.raises(UserError, match="'nonsense'"):
        EnvPool(EnvSpec(default_env_args("lift"), obs_keys=("nonsense",)), n_envs=1)
    with pytest.raises(UserError, match="n_envs is 0"):
        EnvPool(SPEC, n_envs=0)


def test_workers_import_nothing_heavy_and_use_one_thread() -> None:
    script = """
        import sys
        from envs.messages import Capture, EnvSpec
        from envs.worker import Simulation
        from envs.tasks import default_env_args
        Simulation(EnvSpec(default_env_args("lift"))).reset(0, Capture())
        heavy = ("torch", "torchvision", "stable_baselines3", "lightning", "h5py")
        print([name for name in heavy if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
    assert done.stderr == "", "robosuite's advice about its macros is kept quiet"


def test_the_environment_of_workers_asks_for_one_thread(pool: EnvPool) -> None:
    environ = Path(f"/proc/{pool._workers[0].process.pid}/environ").read_bytes().split(b"\0")
    assert {b"OMP_NUM_THREADS=1", b"OPENBLAS_NUM_THREADS=1", b"MKL_NUM_THREADS=1"} <= set(environ)


def test_a_killed_worker_is_reported_and_closing_leaves_nobody(pool: EnvPool) -> None:
    """The last test of this pool."""
    pids = [worker.process.pid for worker in pool._workers]
    os.kill(pids[-1], signal.SIGSTOP)  # so that it cannot answer before it dies
    pool.reset(0, seed=0)
    pool.reset(2, seed=0)
    os.kill(pids[-1], signal.SIGKILL)
    with pytest.raises(WorkerError, match="environments 2 to 2 was killed by signal 9"):
        pool.drain()
    pool.discard()
    pool.close()
    assert wait_until_gone(pids) == []


# A program as a user would write it: no main guard, busy rollouts. It prints its worker's process id, then runs on.
PROGRAM = """
    import numpy as np
    from envs.pool import EnvPool, EnvSpec
    from envs.tasks import default_env_args
    from rollouts.loop import run_episodes

    class Still:
        def act(self, obs, episodes):
            return np.zeros((len(obs), 4, 7), np.float32)

    with EnvPool(EnvSpec(default_env_args("lift")), n_envs=1) as pool:
        print(*[worker.process.pid for worker in pool._workers], flush=True)
        run_episodes(Still(), pool, 0, range(10_000))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(how: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        process_group=0,
        # A shell's background jobs ignore Ctrl-C and hand that down; a program at a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert [is_running(pid) for pid in pids] == [True]
    os.killpg(parent.pid, how)  # as the terminal does for Ctrl-C
    parent.wait(timeout=30)
    assert wait_until_gone(pids) == []
    errors = parent.stderr.read()
    if how == signal.SIGINT:
        assert errors.strip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1, "only the parent sees Ctrl-C"
    else:
        assert errors == ""


def test_available_cpus_follow_the_affinity_mask() -> None:
    pin = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    script = pin + "from envs.pool import available_cpus; print(available_cpus())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "1"
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("beside_the_code", [False, True])
def test_a_worker_runs_no_stray_file_of_the_working_directory_or_beside_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside_the_code: bool
) -> None:
    for name in ("copy", "json", *(() if beside_the_code else ("numpy",))):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('this {name}.py is not Python's')\n")
    if beside_the_code:
        for package in ("common", "envs"):
            shutil.copytree(ROOT / package, tmp_path / package)
        monkeypatch.setattr("envs.pool.__file__", str(tmp_path / "envs/pool.py"))
    else:
        monkeypatch.chdir(tmp_path)
    worker = _start_worker(0)
    worker.connection.send((SPEC, 0))
    worker.connection.close()
    assert worker.process.wait() == 0
