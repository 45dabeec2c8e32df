"""robosuite 1.4.1 behind the functions of ``envs.simulator``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from envs.robosuite141.stepping import FusedStepping
from envs.robosuite_common import ArmAddresses, MujocoEnv, why_osc_not_fused

# ruff: noqa: I001 - envs.robosuite_common prepares these imports
from robosuite.controllers.osc import OperationalSpaceController
from robosuite.models.grippers.panda_gripper import PandaGripper
from robosuite.robots.single_arm import SingleArm


def arm_of(env: MujocoEnv) -> ArmAddresses | None:
    if len(env.robots) != 1 or type(env.robots[0]) is not SingleArm:
        return None
    robot = env.robots[0]
    torque_min, torque_max = robot.torque_limits
    return ArmAddresses(
        controller=robot.controller,
        gripper=robot.gripper,
        site=robot.eef_site_id,
        hand=env.sim.model.body_name2id(robot.robot_model.eef_name),
        qpos=robot._ref_joint_pos_indexes,
        dof=robot._ref_joint_vel_indexes,
        actuators=robot._ref_joint_actuator_indexes,
        torque_min=torque_min,
        torque_max=torque_max,
        gripper_qpos=robot._ref_gripper_joint_pos_indexes,
        gripper_dof=robot._ref_gripper_joint_vel_indexes,
        gripper_actuators=robot._ref_joint_gripper_actuator_indexes,
    )


def why_not_fused(env: MujocoEnv) -> str | None:
    arm = arm_of(env)
    if arm is None:
        return "it has more than one arm"
    controller = arm.controller
    if type(controller) is not OperationalSpaceController or not controller.use_ori:
        return f"its controller is {controller.name}, not OSC_POSE"
    if not controller.use_delta:
        return "its controller takes absolute goals"
    if type(arm.gripper) is not PandaGripper:
        return f"its gripper is {type(arm.gripper).__name__}, not PandaGripper"
    return why_osc_not_fused(env, controller)


def fused_stepping(env: MujocoEnv) -> FusedStepping:
    arm = arm_of(env)
    assert arm is not None
    return FusedStepping(env, arm)


@contextmanager
def drawing(env: MujocoEnv, seed: int) -> Iterator[Callable[[float, float], float]]:
    """robosuite 1.4 draws from numpy's global generator, which is put back afterwards."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield np.random.uniform
    finally:
        np.random.set_state(before)


def controllers(env: MujocoEnv) -> list[Any]:
    return [robot.controller for robot in env.robots]
