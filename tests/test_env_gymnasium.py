"""RobosuiteEnv and ActionChunkEnv as gymnasium environments: checks, episode ends, chunks."""

from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from envs.action_chunk import ActionChunkEnv
from envs.robosuite_common import make_env
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import default_env_args

STILL = np.array([0, 0, 0, 0, 0, 0, -1.0])


@pytest.fixture
def lift() -> Iterator[RobosuiteEnv]:
    env = RobosuiteEnv(default_env_args("lift"), horizon=6)
    yield env
    env.close()


def hold_cube_up(env: RobosuiteEnv) -> None:
    """Put the cube where Lift counts it as lifted, falling."""
    state = env.state()
    state[1 + 9 + 2] = 1.2  # after time and the joints of arm and fingers: the cube's height
    env.reset_to(state)


@pytest.mark.parametrize("name", ["Lift", "Can", "Square", "ToolHang", "Transport"])
@pytest.mark.filterwarnings("error", "ignore:.*infinity.*", "ignore:.*more than one arm")  # observations have no bounds
def test_registered_environments_pass_both_checkers(name: str) -> None:
    env = gymnasium.make(f"Robomimic/{name}-v0")
    check_env(env.unwrapped, skip_render_check=True)
    check_env_for_sb3(env.unwrapped, skip_render_check=True)
    env.close()


def test_the_time_limit_truncates(lift: RobosuiteEnv) -> None:
    lift.reset(seed=0)
    ends = [lift.step(STILL)[2:4] for _ in range(6)]
    assert ends == [(False, False)] * 5 + [(False, True)]


def test_success_terminates_and_pays_one(lift: RobosuiteEnv) -> None:
    lift.reset(seed=0)
    hold_cube_up(lift)
    _, reward, terminated, truncated, info = lift.step(STILL)
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"is_success": True})


@pytest.mark.parametrize("action", [np.zeros(6), np.full(7, np.nan)])
def test_an_impossible_action_is_an_error(lift: RobosuiteEnv, action: np.ndarray) -> None:
    lift.reset(seed=0)
    with pytest.raises(ValueError, match="expected \\(7,\\) finite numbers"):
        lift.step(action)


def test_a_chunk_is_its_actions_one_by_one(lift: RobosuiteEnv) -> None:
    chunks = ActionChunkEnv(lift, 4)
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 7)).astype(np.float32)
    lift.reset(seed=1)
    for action in actions:
        last = lift.step(action)[0]
    chunks.reset(seed=1)
    obs, reward, terminated, truncated, info = chunks.step(actions)
    assert np.array_equal(obs, last)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info == {"is_success": False, "env_steps": 4}


def test_a_chunk_stops_at_the_time_limit(lift: RobosuiteEnv) -> None:
    chunks = ActionChunkEnv(lift, 4)
    chunks.reset(seed=1)
    actions = np.tile(STILL, (4, 1))
    assert chunks.step(actions)[3:] == (False, {"is_success": False, "env_steps": 4})
    assert chunks.step(actions)[3:] == (True, {"is_success": False, "env_steps": 2})


def test_a_chunk_stops_at_success(lift: RobosuiteEnv) -> None:
    chunks = ActionChunkEnv(lift, 4)
    chunks.reset(seed=1)
    hold_cube_up(lift)
    _, reward, terminated, truncated, info = chunks.step(np.tile(STILL, (4, 1)))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info == {"is_success": True, "env_steps": 1}


def test_success_is_robosuites_own(lift: RobosuiteEnv) -> None:
    lift.reset(seed=0)
    assert lift.advance(STILL) == make_env(lift.env_args)._check_success()
    hold_cube_up(lift)
    assert lift.advance(STILL) == lift._env._check_success() == True  # noqa: E712
