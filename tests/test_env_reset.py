"""Resets: the states of robosuite's own hard reset, without its rebuild; exact replay of an episode."""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import mujoco
import numpy as np
import pytest

from common.errors import UserError
from envs.episodes import episode_generator, episode_seed
from envs.installed import installed_folder
from envs.robosuite_common import make_env, model_and_data
from envs.robosuite_env import RobosuiteEnv
from envs.simulator import simulator
from envs.tasks import DEFAULT_OBS_KEYS, default_env_args, resolve_env_args
from tests.simulators import ONE_ARM, seeded_hard_reset

REAL_FILE = Path(__file__).resolve().parents[2] / "shared/data/ph_lift_low_dim.hdf5"


@pytest.fixture(scope="module", params=ONE_ARM)
def env(request: pytest.FixtureRequest) -> Iterator[RobosuiteEnv]:
    env = RobosuiteEnv(default_env_args(request.param))
    yield env
    env.close()


@pytest.fixture(scope="module")
def lift() -> Iterator[RobosuiteEnv]:
    env = RobosuiteEnv(default_env_args("lift"))
    yield env
    env.close()


def model_arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    arrays = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    # Without mean mass and size, which scale a viewer's arrows and which MuJoCo 3.17 does not follow up.
    statistics = {f"stat.{name}": getattr(model.stat, name) for name in ("meaninertia", "extent", "center")}
    return {
        name: np.array(value)
        for name, value in (arrays | statistics).items()
        if isinstance(value, np.ndarray | float) and np.asarray(value).dtype.kind in "fiu"
    }


def test_seeded_reset_equals_robosuites_hard_reset(env: RobosuiteEnv) -> None:
    stock = make_env(env.env_args)
    for seed in (0, 1, 2**32 - 1):
        env.reset(seed=seed)
        seeded_hard_reset(stock, seed)
        assert np.array_equal(env.state(), stock.sim.get_state().flatten())
        # Everything else that a rebuild could vary, the cube's inertia and bounds included, is in the model.
        ours, theirs = model_arrays(model_and_data(env._env)[0]), model_arrays(stock.sim.model._model)
        for name, array in theirs.items():
            assert np.allclose(ours[name], array, rtol=1e-14, atol=0), name
        ours_arm, theirs_arm = simulator.arm_of(env._env), simulator.arm_of(stock)
        assert ours_arm is not None
        assert theirs_arm is not None
        assert np.array_equal(ours_arm.controller.initial_joint, theirs_arm.controller.initial_joint)


def test_reset_does_not_touch_numpys_global_generator(env: RobosuiteEnv) -> None:
    np.random.seed(5)
    expected = np.random.RandomState(5).rand(3)
    env.reset(seed=0)
    env.reset()
    assert np.array_equal(np.random.rand(3), expected)


def test_reset_without_a_seed_follows_the_last_seed(lift: RobosuiteEnv) -> None:
    lift.reset(seed=3)
    after = [lift.reset()[0] for _ in range(2)]
    lift.reset(seed=3)
    again = [lift.reset()[0] for _ in range(2)]
    assert np.array_equal(after, again)
    assert not np.array_equal(after[0], after[1])


def test_cube_size_varies_over_its_whole_range(lift: RobosuiteEnv) -> None:
    sizes = []
    model, _ = model_and_data(lift._env)
    for seed in range(40):
        lift.reset(seed=seed)
        sizes.append(model.geom("cube_g0").size.copy())
    assert 0.020 <= np.min(sizes) < 0.0202
    assert 0.0218 < np.max(sizes) <= 0.022


def run(env: RobosuiteEnv, actions: np.ndarray) -> np.ndarray:
    """The states before each action and after the last."""
    states = [env.state()]
    for action in actions:
        env.advance(action)
        states.append(env.state())
    return np.array(states)


def test_replay_from_the_first_state_is_exact(env: RobosuiteEnv) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 7))
    first, _ = env.reset(seed=11)
    states = run(env, actions)
    model_file = env.model_file()
    env.reset(seed=12)
    run(env, actions[:3])
    assert np.array_equal(env.reset_to(states[0], model_file), first)
    assert np.array_equal(run(env, actions), states)


def test_model_file_loads_in_robosuite_itself(env: RobosuiteEnv) -> None:
    obs, _ = env.reset(seed=4)
    # The steps of robomimic's EnvRobosuite.reset_to, which this version of robomimic cannot run (it needs mujoco_py).
    stock = make_env(env.env_args)
    stock.reset()
    stock.reset_from_xml_string(stock.edit_model_xml(env.model_file()))
    stock.sim.reset()
    stock.sim.set_state_from_flattened(env.state())
    stock.sim.forward()
    stock._get_observations(force_update=True)  # robosuite 1.5 observes objects a reading late
    reading = stock._get_observations(force_update=True) | {}
    reading["object"] = reading["object-state"]
    assert np.array_equal(np.concatenate([reading[key] for key in DEFAULT_OBS_KEYS]).astype(np.float32), obs)
    ours, theirs = model_arrays(model_and_data(env._env)[0]), model_arrays(stock.sim.model._model)
    assert np.allclose(ours["body_inertia"], theirs["body_inertia"], rtol=1e-14, atol=0)


def test_a_seeded_reset_after_a_foreign_model_is_as_before(lift: RobosuiteEnv) -> None:
    actions = np.random.default_rng(1).uniform(-1, 1, (5, 7))
    lift.reset(seed=7)
    states = run(lift, actions)
    heavy = lift.model_file().replace('density="1000"', 'density="3000"')
    lift.reset_to(states[0], heavy)
    foreign, _ = model_and_data(lift._env)
    assert foreign.body("cube_main").mass > 0.19
    assert lift.model_file() == heavy
    assert not np.array_equal(run(lift, actions), states)
    lift.reset(seed=7)
    assert np.array_equal(run(lift, actions), states)


def test_lift_demonstrations_of_other_cubes_need_no_rebuild(lift: RobosuiteEnv) -> None:
    files = []
    for seed in (1, 2):
        lift.reset(seed=seed)
        files.append((lift.state(), lift.model_file()))
    assert files[0][1] != files[1][1]
    model, _ = model_and_data(lift._env)
    for state, model_file in files:
        lift.reset_to(state, model_file)
        assert lift.model_file() == model_file
    assert model_and_data(lift._env)[0] is model


@pytest.mark.parametrize(
    ("model_file", "message"),
    [("<mujoco", "can read"), ("<mujoco><worldbody><joint/></worldbody><asset/></mujoco>", "can read")],
)
def test_an_unreadable_model_file_is_the_users_error(lift: RobosuiteEnv, model_file: str, message: str) -> None:
    lift.reset(seed=0)
    with pytest.raises(UserError, match=message):
        lift.reset_to(lift.state(), model_file)


def test_the_model_file_of_another_task_is_refused(lift: RobosuiteEnv) -> None:
    can = RobosuiteEnv(default_env_args("can"))
    can.reset(seed=0)
    lift.reset(seed=0)
    with pytest.raises(UserError, match="not one of Lift"):
        lift.reset_to(lift.state(), can.model_file())


def test_a_state_of_another_task_is_refused(lift: RobosuiteEnv) -> None:
    with pytest.raises(UserError, match=r"\(71,\) does not fit Lift: expected \(32,\)"):
        lift.reset_to(np.zeros(71))


@pytest.mark.skipif(not REAL_FILE.is_file(), reason=f"{REAL_FILE} is not on this machine")
@pytest.mark.skipif(installed_folder() != "robosuite141", reason="its observations and controller are robosuite 1.4's")
def test_real_demonstrations_give_their_observations_and_succeed(lift: RobosuiteEnv) -> None:
    with h5py.File(REAL_FILE) as file:
        for demo in file["data"].values():
            states, actions = demo["states"][:], demo["actions"][:]
            stored = np.concatenate([demo["obs"][key][:] for key in DEFAULT_OBS_KEYS], axis=1)
            with pytest.warns(UserWarning, match="another version"):
                lift.reset_to(states[0], demo.attrs["model_file"])
            observed = [lift.reset_to(state) for state in states]
            assert np.allclose(observed, stored, atol=1e-6)
            lift.reset_to(states[0], demo.attrs["model_file"])
            assert [lift.advance(action) for action in actions][-1]


def test_episode_seeds_are_distinct_and_their_noise_is_independent() -> None:
    seeds = {episode_seed(seed, index) for seed in range(5) for index in range(400)}
    assert len(seeds) == 2000
    assert max(seeds) < 2**32
    draws = [episode_generator(0, index).standard_normal() for index in range(2000)]
    assert abs(np.mean(draws)) < 0.1
    assert abs(np.std(draws) - 1) < 0.1


def test_env_args_come_from_the_file_then_the_task() -> None:
    own = {"env_name": "Lift"}
    assert resolve_env_args(own, "can") is own
    with pytest.warns(UserWarning, match="no env_args"):
        assert resolve_env_args(None, "can")["env_name"] == "PickPlaceCan"
    with pytest.raises(UserError, match="Name the task"):
        resolve_env_args(None, None)
    with pytest.raises(UserError, match="expected one of lift, can, square, tool_hang, transport"):
        default_env_args("Lift")
    assert json.loads(json.dumps(default_env_args("lift"))) == default_env_args("lift")
