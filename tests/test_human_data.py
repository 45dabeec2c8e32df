"""Human demonstrations agree with the simulator, and train as they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from datamodules.demonstrations import Demonstration
from datamodules.hdf5 import DatasetFile
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import DEFAULT_OBS_KEYS, default_env_args
from tests.human_data import human
from tests.training_toy import ForkServer, fit_line

SQUARE = "human/square_ph_low_dim.hdf5"
FILES = (SQUARE, *(f"human/{name}_segments.hdf5" for name in ("lift_ph", "can_ph", "lift_mh", "can_mh", "square_mh")))
OBJECT_JOINTS = {"lift": "cube_joint0", "can": "Can_joint0", "square": "SquareNut_joint0"}


def stored_observation(demo: Demonstration, t: int) -> np.ndarray:
    return np.concatenate([demo.obs[key][t] for key in DEFAULT_OBS_KEYS])


def state_of(env: RobosuiteEnv, task: str, demo: Demonstration, t: int) -> np.ndarray:
    """The simulator state (S,) whose joints, fingers and object and arm velocities are a stored observation's."""
    simulation, robot = env._env.sim, env._env.robots[0]
    env.reset(seed=0)
    state = env.state()
    qpos = state[1 : 1 + simulation.model.nq]  # views
    qvel = state[1 + simulation.model.nq :]
    qpos[robot._ref_joint_pos_indexes] = demo.obs["robot0_joint_pos"][t]
    qpos[robot._ref_gripper_joint_pos_indexes] = demo.obs["robot0_gripper_qpos"][t]
    qvel[robot._ref_joint_vel_indexes] = demo.obs["robot0_joint_vel"][t]
    begin, _ = simulation.model.get_joint_qpos_addr(OBJECT_JOINTS[task])
    position, (x, y, z, w) = demo.obs["object"][t, :3], demo.obs["object"][t, 3:7]
    qpos[begin : begin + 7] = [*position, w, x, y, z]
    return state


def test_stored_states_give_back_the_stored_observations() -> None:
    with DatasetFile(human(SQUARE)) as file:
        assert file.env_args is not None
        env = RobosuiteEnv(file.env_args)
        for name in file.names()[::40]:
            demo = file.read(name)
            for t in range(0, len(demo), 15):
                env.reset_to(demo.states[t])
                np.testing.assert_allclose(env.observe(), stored_observation(demo, t), atol=1e-6)
    env.close()


@pytest.mark.parametrize("name", ["lift_ph", "lift_mh", "can_ph", "can_mh", "square_mh"])
def test_joints_and_object_give_back_the_stored_observations(name: str) -> None:
    task = name.split("_")[0]
    with DatasetFile(human(f"human/{name}_segments.hdf5")) as file:
        env = RobosuiteEnv(default_env_args(task))
        for demo_name in file.names()[::8]:
            demo = file.read(demo_name)
            for t in range(0, len(demo), 25):
                env.reset_to(state_of(env, task, demo, t))
                np.testing.assert_allclose(env.observe(), stored_observation(demo, t), atol=1e-6)
    env.close()


def test_replaying_pieces_that_start_at_rest_lifts_the_cube() -> None:
    env = RobosuiteEnv(default_env_args("lift"))
    replayed = 0
    with DatasetFile(human("human/lift_ph_segments.hdf5")) as file:
        for name in file.names():
            demo = file.read(name)
            if demo.obs["robot0_joint_vel"][0].any():
                continue
            env.reset_to(state_of(env, "lift", demo, 0))
            # A piece ends before the first success, which a cube of the recording's size, unknown here, reaches sooner.
            assert any(env.advance(action) for action in [*demo.actions, *[demo.actions[-1]] * 5]), name
            replayed += 1
    env.close()
    assert replayed == 27


@pytest.mark.parametrize("name", FILES)
def test_an_epoch_on_each_file(name: str, tmp_path: Path, cli_server: ForkServer) -> None:
    flags = {"data__task": Path(name).name.split("_")[0], "data__obs_keys": json.dumps(DEFAULT_OBS_KEYS)}
    line = fit_line(tmp_path, human(name), **flags, data__batch_size=2048, trainer__max_epochs=1)
    status, errors = cli_server.run(line)
    assert (status, (tmp_path / "policy.safetensors").is_file()) == (0, True), errors
