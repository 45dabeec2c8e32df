"""What RobosuiteEnv observes: robosuite's own sensors, on the forwarded state, only those asked for."""

import numpy as np
import pytest

from common.errors import UserError
from envs.installed import header
from envs.readout import Sensors
from envs.robosuite_common import make_env, model_and_data
from envs.robosuite_env import RobosuiteEnv, SteppingName
from envs.simulator import simulator
from envs.tasks import TASKS, default_env_args
from tests.simulators import ONE_ARM, WITH_GOAL

KEYS = header().RECORDED_KEYS  # all low-dim observations of Robomimic's files
# Those that the compiled readout knows, in another order than the data files'.
COMPILED_KEYS = (
    "robot0_joint_vel",
    "object",
    "robot0_eef_pos",
    "robot0_eef_quat",
    "robot0_gripper_qpos",
    "robot0_gripper_qvel",
    "robot0_joint_pos",
)
ROUNDING = 1e-14  # numpy's products of rotations, in robosuite's sensors, round otherwise from CPU to CPU


def robosuites_own(env: RobosuiteEnv, keys: tuple[str, ...], cache: dict[str, np.ndarray]) -> np.ndarray:
    """As robomimic's ``dataset_states_to_obs`` reads them: forwarded, forced, with all sensors active.

    ``cache`` holds what robosuite's sensors know of the reading before, and then of this one.
    """
    env._env.sim.forward()
    env._env._obs_cache = dict(cache)  # stepping has made readings in between
    for name in env._env.observation_names:
        if "joint_pos" in name or "eef_vel" in name:
            env._env.modify_observable(name, "active", True)
    reading = env._env._get_observations(force_update=True)
    cache.update(env._env._obs_cache)
    return np.concatenate([reading["object-state" if key == "object" else key] for key in keys])


@pytest.mark.parametrize("task", ONE_ARM)
@pytest.mark.parametrize("keys", [KEYS, COMPILED_KEYS], ids=["by robosuite", "compiled"])
@pytest.mark.parametrize("stepping", ["fused", "stock"])
def test_observations_are_robomimics_for_the_state(task: str, keys: tuple[str, ...], stepping: SteppingName) -> None:
    env = RobosuiteEnv(default_env_args(task), keys, stepping=stepping)
    assert tuple(env.obs_dims) == keys
    assert (env._sensors._plan is not None) == (keys == COMPILED_KEYS)
    assert env.obs_dims["object"] == TASKS[task].object_dim
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.float32
    cache: dict[str, np.ndarray] = {}
    robosuites_own(env, keys, cache)
    assert np.abs(env.observe() - robosuites_own(env, keys, cache)).max() < ROUNDING
    assert np.array_equal(obs, env.observe().astype(np.float32))
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 7)):
        obs = env.step(action)[0]
        assert np.abs(env.observe() - robosuites_own(env, keys, cache)).max() < ROUNDING
        assert np.array_equal(obs, env.observe().astype(np.float32))
    env.close()


def test_relative_poses_are_there_right_after_a_reset() -> None:
    env = RobosuiteEnv(default_env_args("can"), ("Can_pos", "robot0_eef_pos", "Can_to_robot0_eef_pos"))
    can, hand, relative = env.reset(seed=0)[0].reshape(3, 3)
    assert np.linalg.norm(relative) == pytest.approx(np.linalg.norm(can - hand), abs=1e-5)
    env.close()


def test_only_what_is_asked_for_is_computed() -> None:
    env = make_env(default_env_args("can"))
    names = [name for name, _ in Sensors(env, ("robot0_gripper_qpos",))._sensors]
    assert names == ["robot0_gripper_qpos"]
    names = [name for name, _ in Sensors(env, ("object",))._sensors]
    assert "robot0_eef_pos" in names
    assert "robot0_joint_vel" not in names


def test_an_unknown_key_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"\['agentview_image'\] are not observed by Lift: it has \['object'"):
        RobosuiteEnv(default_env_args("lift"), ("object", "agentview_image"))


def test_an_unknown_environment_is_the_users_error() -> None:
    with pytest.raises(UserError, match="'Lifft'"):
        RobosuiteEnv(default_env_args("lift") | {"env_name": "Lifft"})


@pytest.mark.parametrize("task", WITH_GOAL)
def test_success_is_robosuites_own(task: str) -> None:
    env = RobosuiteEnv(default_env_args(task))
    env.reset(seed=0)
    _, data = model_and_data(env._env)
    bodies = {
        "lift": lambda: [env._env.cube_body_id],
        "can": lambda: [env._env.obj_body_id[thing.name] for thing in env._env.objects],
        "square": lambda: [env._env.obj_body_id[thing.name] for thing in env._env.nuts],
    }[task]()
    # Where success begins and ends: the table's height; the four bins; the two pegs.
    low, high = {
        "lift": ([-0.3, -0.3, 0.80], [0.3, 0.3, 0.88]),
        "can": ([-0.15, 0.0, 0.75], [0.35, 0.55, 0.95]),
        "square": ([0.18, -0.15, 0.8], [0.28, 0.15, 0.9]),
    }[task]
    hand = simulator.arm_of(env._env)
    assert hand is not None
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(4000):
        # Kinematics are overwritten, not simulated: both checks read these two arrays and nothing else that moves.
        data.xpos[bodies] = rng.uniform(low, high, (len(bodies), 3))
        data.site_xpos[hand.site] = data.xpos[bodies[0]] + rng.normal(0, 0.05, 3)
        ours, theirs = env._success.check(), bool(env._env._check_success())
        assert ours == theirs
        outcomes.append(ours)
    assert 0.02 < np.mean(outcomes) < 0.98, "both outcomes are to be seen, or this tests little"
