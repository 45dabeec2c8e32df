"""robosuite 1.5 behind the functions of ``envs.simulator``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from envs.robosuite15.stepping import FusedStepping
from envs.robosuite_common import ArmAddresses, MujocoEnv, model_and_data, why_osc_not_fused

# ruff: noqa: I001 - envs.robosuite_common prepares these imports
from robosuite.controllers.composite.composite_controller import CompositeController
from robosuite.controllers.parts.arm.osc import OperationalSpaceController
from robosuite.controllers.parts.gripper.simple_grip import SimpleGripController
from robosuite.models.grippers.panda_gripper import PandaGripper
from robosuite.robots.fixed_base_robot import FixedBaseRobot


def arm_of(env: MujocoEnv) -> ArmAddresses | None:
    if len(env.robots) != 1 or type(env.robots[0]) is not FixedBaseRobot or len(env.robots[0].arms) != 1:
        return None
    robot = env.robots[0]
    (side,) = robot.arms
    model, _ = model_and_data(env)
    actuators = robot._ref_actuators_indexes_dict[side]
    torque_min, torque_max = model.actuator_ctrlrange[actuators].T
    return ArmAddresses(
        controller=robot.part_controllers[side],
        gripper=robot.gripper[side],
        site=robot.eef_site_id[side],
        hand=env.sim.model.body_name2id(robot.robot_model.eef_name[side]),
        qpos=robot._ref_joint_pos_indexes,
        dof=robot._ref_joint_vel_indexes,
        actuators=actuators,
        torque_min=torque_min,
        torque_max=torque_max,
        gripper_qpos=robot._ref_gripper_joint_pos_indexes[side],
        gripper_dof=robot._ref_gripper_joint_vel_indexes[side],
        gripper_actuators=robot._ref_joint_gripper_actuator_indexes[side],
    )


def why_not_fused(env: MujocoEnv) -> str | None:
    arm = arm_of(env)
    if arm is None:
        return "it has more than one arm"
    composite = env.robots[0].composite_controller
    if type(composite) is not CompositeController:
        return f"its composite controller is {composite.name}, not BASIC"
    controller = arm.controller
    if type(controller) is not OperationalSpaceController or not controller.use_ori:
        return f"its controller is {controller.name}, not OSC_POSE"
    if controller.input_type != "delta":
        return "its controller takes absolute goals"
    if type(arm.gripper) is not PandaGripper:
        return f"its gripper is {type(arm.gripper).__name__}, not PandaGripper"
    (side,) = env.robots[0].arms
    grip = composite.part_controllers[env.robots[0].get_gripper_name(side)]
    if type(grip) is not SimpleGripController or not grip.use_action_scaling:
        return "its gripper is not controlled by GRIP"
    return why_osc_not_fused(env, controller)


def fused_stepping(env: MujocoEnv) -> FusedStepping:
    arm = arm_of(env)
    assert arm is not None
    return FusedStepping(env, arm)


@contextmanager
def drawing(env: MujocoEnv, seed: int) -> Iterator[Callable[[float, float], float]]:
    """robosuite 1.5 draws from the environment's generator, which objects' samplers hold too: it is seeded in place."""
    env.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    yield env.rng.uniform


def controllers(env: MujocoEnv) -> list[Any]:
    return [robot.part_controllers[side] for robot in env.robots for side in robot.arms]
