"""Files and checkpoints of each robosuite meet the one that is installed."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from common.errors import UserError
from datamodules.hdf5 import DatasetFile
from envs.installed import FOLDERS, check_version, header, installed_folder
from envs.robosuite_common import make_env
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import DEFAULT_OBS_KEYS, default_env_args
from tests.simulators import seeded_hard_reset

OTHERS = [folder for folder in FOLDERS.values() if folder != installed_folder()]


@pytest.mark.parametrize("folder", OTHERS)
def test_a_file_of_the_other_version_names_the_command_that_mends_it(folder: str) -> None:
    theirs = header(folder)
    env_args = theirs.env_args("Lift")
    with pytest.raises(UserError) as caught:
        RobosuiteEnv(env_args)
    message = str(caught.value)
    assert f"robosuite {env_args['env_version']}" in message
    assert f"'{theirs.SETUP}'" in message
    assert theirs.PYTHON in message
    assert header().FILES in message


def test_a_file_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(UserError, match=r"robosuite 2\.0: there is no simulator for it"):
        check_version(default_env_args("lift") | {"env_version": "2.0"})


def test_a_header_without_a_version_is_taken_for_the_installed_ones() -> None:
    env_args = default_env_args("lift")
    del env_args["env_version"]
    check_version(env_args)


def reversed_keys(value: Any) -> Any:
    """The same settings in another order."""
    return {key: reversed_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


def knock_can(stock: Any) -> None:
    address = stock.sim.model.get_joint_qvel_addr("Can_joint0")[0]
    stock.sim.data.qvel[address : address + 3] = [0.3, 0.2, 1.0]


@pytest.fixture(scope="module", params=["lift", "can", "square"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A file recorded by robosuite itself, and what it observes of the file's states, one after the other.

    The latter as Robomimic's ``dataset_states_to_obs`` does it: state, forward pass, forced observation.
    """
    env_args = reversed_keys(default_env_args(request.param))
    stock = make_env(env_args)
    reading = seeded_hard_reset(stock, 5)
    states, readings, actions = [], [], np.random.default_rng(0).uniform(-1, 1, (12, 7))
    for action in actions:
        if request.param == "can":
            knock_can(stock)
        states.append(stock.sim.get_state().flatten())
        readings.append(reading)
        reading = stock.step(action)[0]
    path = tmp_path_factory.mktemp("recorded") / "low_dim.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(env_args)
        data.attrs["total"] = len(actions)
        demo = data.create_group("demo_0")
        demo.attrs["num_samples"] = len(actions)
        demo.attrs["model_file"] = stock.sim.model.get_xml()
        demo["actions"], demo["states"] = actions, np.array(states)
        for key in DEFAULT_OBS_KEYS:
            name = "object-state" if key == "object" else key
            demo[f"obs/{key}"] = np.array([reading[name] for reading in readings])
    observed = []
    for state in states:
        stock.sim.set_state_from_flattened(state)
        stock.sim.forward()
        forced = stock._get_observations(force_update=True)
        observed.append(np.concatenate([forced["object-state" if k == "object" else k] for k in DEFAULT_OBS_KEYS]))
    return path, np.array(observed)


def test_observations_of_a_file_are_what_its_simulator_gives_for_its_states(recorded: tuple[Path, np.ndarray]) -> None:
    path, observed = recorded
    with DatasetFile(path) as file:
        assert file.env_args is not None
        env = RobosuiteEnv(file.env_args)
        demo = file.read("demo_0", list(DEFAULT_OBS_KEYS))
    stored = np.concatenate([demo.obs[key] for key in DEFAULT_OBS_KEYS], axis=1)
    ours = env.observe_states(demo.states)
    # Without the first, in which robosuite itself knows no observation before.
    assert np.abs(ours[1:] - observed[1:]).max() < 1e-14, "numpy's products round otherwise from CPU to CPU"
    # What `step` returned: derived poses are 2 ms old.
    assert np.abs(ours[1:] - stored[1:]).max() < 0.01
    env.close()
