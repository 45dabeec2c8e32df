"""Transport, the task with two arms: robosuite's own stepping behind the same functions."""

import numpy as np
import pytest

from envs.robosuite_common import make_env
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import TASKS, default_env_args
from tests.simulators import seeded_hard_reset


def test_transport_resets_steps_and_replays_as_robosuite_does() -> None:
    task = TASKS["transport"]
    env_args = default_env_args("transport")
    with pytest.warns(UserWarning, match="stepped by robosuite itself.*more than one arm"):
        env = RobosuiteEnv(env_args, task.obs_keys)
    assert env.obs_dims["object"] == task.object_dim
    assert list(env.obs_dims) == [
        key for key in env.obs_dims if key == "object" or key.startswith(("robot0", "robot1"))
    ]
    first, _ = env.reset(seed=1)
    stock = make_env(env_args)
    seeded_hard_reset(stock, 1)
    assert np.array_equal(env.state(), stock.sim.get_state().flatten())
    model_file, states = env.model_file(), []
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 14))
    for action in actions:
        states.append(env.state())
        assert env.advance(action) is False
        stock.step(action)
    assert np.abs(env.state() - stock.sim.get_state().flatten()).max() < 1e-9
    last = env.state()
    # Another hammer in between, as in the next demonstration of a file.
    env.reset(seed=2)
    assert env.model_file() != model_file
    np.testing.assert_allclose(env.reset_to(states[0], model_file), first, atol=1e-5)
    for action in actions:
        env.advance(action)
    # Numbers in a model file have fewer digits than in the model that it was written from.
    assert np.abs(env.state() - last).max() < 1e-4
    env.close()
