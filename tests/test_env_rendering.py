"""Headless frames, and a machine without a GL library."""

import ctypes.util
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from envs.messages import Capture
from envs.pool import EnvPool, EnvSpec
from envs.rendering import choose_gl
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import default_env_args

ROOT = Path(__file__).resolve().parents[1]
needs_gl = pytest.mark.skipif(
    not (ctypes.util.find_library("EGL") or ctypes.util.find_library("OSMesa")),
    reason="this machine has neither libegl1 nor libosmesa6",
)


@needs_gl
def test_frames_show_the_present_state() -> None:
    env = RobosuiteEnv(default_env_args("lift"), render_mode="rgb_array", render_size=(96, 128))
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (96, 128, 3)
    assert first.dtype == np.uint8
    red = (first[..., 0] > 100) & (first[..., 1] < 60) & (first[..., 2] < 60)
    assert 5 < red.sum() < 400, "the red cube is to be seen, and little else is red"
    assert np.array_equal(first, env.render())
    for _ in range(5):
        env.advance(np.array([0, 1, 0, 0, 0, 0, 0]))
    assert np.abs(env.render().astype(int) - first).max() > 50
    env.reset(seed=0)
    assert np.array_equal(env.render(), first)
    # The picture follows a new model too.
    env.reset_to(env.state(), env.model_file().replace('density="1000"', 'density="900"'))
    assert np.abs(env.render().astype(int) - first).max() < 30
    env.close()


@needs_gl
def test_workers_bring_the_frames_that_are_asked_for() -> None:
    spec = EnvSpec(default_env_args("lift"), pred_horizon=4, render_size=(64, 64))
    with EnvPool(spec, 1) as pool:
        pool.reset(0, 0, Capture(frames_every=3))
        counts = [len(pool.drain()[0].frames or [])]
        for _ in range(3):
            pool.step(0, np.zeros((4, 7)), Capture(frames_every=3))
            counts.append(len(pool.drain()[0].frames or []))
        # The first frame, then those after env steps 3 | 6 | 9 and 12.
        assert counts == [1, 1, 1, 2]
        pool.step(0, np.zeros((4, 7)))
        assert pool.drain()[0].frames is None


@needs_gl
def test_an_unknown_camera_is_the_users_error() -> None:
    env = RobosuiteEnv(default_env_args("lift"), render_mode="rgb_array", camera="nowhere")
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"'nowhere': this model has .*agentview"):
        env.render()


def test_rendering_has_to_be_asked_for() -> None:
    env = RobosuiteEnv(default_env_args("lift"))
    env.reset(seed=0)
    with pytest.raises(UserError, match="render_mode"):
        env.render()


@needs_gl
def test_a_backend_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    present = choose_gl()
    assert present is not None
    monkeypatch.setenv("MUJOCO_GL", present)
    assert choose_gl() == present


def test_without_a_gl_library_only_rendering_fails() -> None:
    # Here the libraries may be installed: hide them from the search that finds them.
    script = """
        import ctypes.util, sys
        find = ctypes.util.find_library
        ctypes.util.find_library = lambda name: None if name in ("EGL", "OSMesa") else find(name)
        from common.errors import UserError
        from envs.robosuite_env import RobosuiteEnv
        from envs.tasks import default_env_args
        env = RobosuiteEnv(default_env_args("lift"), render_mode="rgb_array")
        env.reset(seed=0)
        env.step([0] * 7)
        assert "OpenGL" not in sys.modules, "nothing may try to load a GL library"
        try:
            env.render()
        except UserError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "apt-get install -y libegl1" in done.stdout
    assert "apt-get install -y libosmesa6" in done.stdout
