"""The fused control step computes what robosuite's own step computes."""

import warnings
from typing import Any

import numpy as np
import pytest

from envs.installed import installed_folder
from envs.osc_kernel import wrench
from envs.robosuite_common import make_env
from envs.robosuite_env import RobosuiteEnv
from envs.stepping import OscStepping
from envs.tasks import default_env_args
from tests.simulators import ONE_ARM, controllers, seeded_hard_reset


def qpos_difference(task: str, seed: int, actions: np.ndarray, env_args: dict[str, Any] | None = None) -> np.ndarray:
    """Largest |qpos difference| after each action between the fused step and plain robosuite from its hard reset."""
    env_args = env_args or default_env_args(task)
    fused, stock = RobosuiteEnv(env_args), make_env(env_args)
    assert isinstance(fused._stepping, OscStepping)
    fused.reset(seed=seed)
    seeded_hard_reset(stock, seed)
    nq = len(stock.sim.data.qpos)
    differences = []
    for action in actions:
        fused.advance(action)
        stock.step(action)
        differences.append(np.abs(fused.state()[1 : 1 + nq] - stock.sim.data.qpos).max())
    fused.close()
    return np.array(differences)


@pytest.mark.parametrize("task", ONE_ARM)
def test_random_actions_lead_to_the_same_joint_positions(task: str) -> None:
    difference = qpos_difference(task, 1, np.random.default_rng(1).uniform(-1, 1, (100, 7)))
    assert difference[[0, 9, 99]].max() < 1e-5
    # Before the arm touches anything, nothing but rounding differs.
    assert difference[:20].max() < 1e-9


def test_actions_outside_the_range_and_pure_translations_are_treated_alike() -> None:
    actions = np.random.default_rng(2).uniform(-3, 3, (30, 7))
    actions[::2, 3:6] = 0.0  # robosuite then keeps the last desired orientation
    actions[5:9, 6] = 0.0  # and the fingers where they are
    assert qpos_difference("lift", 0, actions).max() < 1e-9


def test_other_gains_and_ranges_are_followed() -> None:
    env_args = default_env_args("lift")
    controllers(env_args)[0].update(kp=[80, 90, 100, 110, 120, 130], damping_ratio=0.7)
    controllers(env_args)[0].update(input_max=2, input_min=-1, output_max=0.04, output_min=-0.02)
    env_args["env_kwargs"]["control_freq"] = 10
    fused, stock = (RobosuiteEnv(env_args, stepping=stepping) for stepping in ("fused", "stock"))
    for env in (fused, stock):
        env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 2, (10, 7)):
        fused.advance(action)
        stock.advance(action)
    assert np.abs(fused.state() - stock.state()).max() < 1e-8


@pytest.mark.parametrize(
    ("controller", "changes", "reason"),
    [
        ("OSC_POSITION", {"output_max": 0.05, "output_min": -0.05}, "OSC_POSITION, not OSC_POSE"),
        ("JOINT_POSITION", {"output_max": 0.05, "output_min": -0.05}, "JOINT_POSITION, not OSC_POSE"),
        ("OSC_POSE", {"impedance_mode": "variable_kp"}, "impedance_mode is variable_kp"),
        ("OSC_POSE", {"control_delta": False, "input_type": "absolute"}, "absolute goals"),
    ],
)
def test_anything_else_is_stepped_by_robosuite_and_said_so(
    controller: str, changes: dict[str, object], reason: str
) -> None:
    env_args = default_env_args("lift")
    controllers(env_args)[0].update(type=controller, **changes)
    with pytest.warns(UserWarning, match=f"stepped by robosuite itself.*{reason}") as caught:
        env = RobosuiteEnv(env_args)
    assert env.action_space.high.max() == (np.inf if reason == "absolute goals" else 1.0)
    assert len([warning for warning in caught if "robosuite itself" in str(warning.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        env.reset(seed=0)
        before = env.state()
        env.step(np.full(env.action_shape, 0.1))
    assert not np.array_equal(env.state(), before)
    env.close()


def test_limits_on_goals_are_left_to_robosuite() -> None:
    # Not stepped: robosuite 1.5 does not implement them.
    env_args = default_env_args("lift")
    controllers(env_args)[0]["position_limits"] = [[-1, -1, 0], [1, 1, 2]]
    with pytest.warns(UserWarning, match="limits position"):
        RobosuiteEnv(env_args).close()


@pytest.mark.skipif(installed_folder() == "robosuite141", reason="robosuite 1.4 has one frame and one way of physics")
@pytest.mark.parametrize("frame", ["world", "base"])
@pytest.mark.parametrize("lite_physics", [False, True])
def test_both_frames_and_both_ways_of_physics_are_followed(frame: str, lite_physics: bool) -> None:
    env_args = default_env_args("lift")
    controllers(env_args)[0]["input_ref_frame"] = frame
    env_args["env_kwargs"]["lite_physics"] = lite_physics
    actions = np.random.default_rng(3).uniform(-1, 1, (30, 7))
    actions[::3, 3:6] = 0.0
    assert qpos_difference("lift", 0, actions, env_args).max() < 1e-9


def test_an_interpolating_controller_is_left_to_robosuite() -> None:
    # Not stepped: robosuite 1.4.1's interpolator does not work with numpy 2.
    env_args = default_env_args("lift")
    controllers(env_args)[0]["interpolation"] = "linear"
    with pytest.warns(UserWarning, match="interpolates"):
        RobosuiteEnv(env_args).close()


def test_two_arms_are_stepped_by_robosuite() -> None:
    env_args = default_env_args("lift")
    env_args["env_name"] = "TwoArmLift"
    env_args["env_kwargs"]["robots"] = ["Panda", "Panda"]
    with pytest.warns(UserWarning, match="more than one arm"):
        env = RobosuiteEnv(env_args, ("robot0_eef_pos", "robot1_eef_pos"))
    first, _ = env.reset(seed=0)
    assert env.action_shape == (14,)
    assert not np.array_equal(env.step(np.full(14, 0.5))[0], first)
    assert np.array_equal(env.reset(seed=0)[0], first)


def test_a_singular_pose_is_solved_as_by_pseudo_inverse() -> None:
    rng = np.random.default_rng(0)
    jacobian = rng.normal(size=(6, 7))
    jacobian[5] = jacobian[4]  # the hand can turn about two axes only
    mass = np.diag(rng.uniform(1, 2, 7))
    inertia_inv = jacobian @ np.linalg.inv(mass) @ jacobian.T
    force, null_acc = rng.normal(size=6), jacobian @ rng.normal(size=7)
    expected = np.concatenate(
        [np.linalg.pinv(inertia_inv[:3, :3]) @ force[:3], np.linalg.pinv(inertia_inv[3:, 3:]) @ force[3:]]
    )
    expected -= np.linalg.pinv(inertia_inv) @ null_acc
    wrench(inertia_inv, force, null_acc, np.empty((6, 6)), np.empty((3, 3)))
    assert np.allclose(force, expected, rtol=1e-6)
