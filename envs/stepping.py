"""Two ways to simulate one control step of a robosuite environment: its own, and the fused one."""

from typing import Protocol

import numpy as np

from envs.osc_kernel import Arm, Goal, Sim, control_step
from envs.robosuite141.build import MujocoEnv, model_and_data


class Stepping(Protocol):
    """Simulates control steps of one environment."""

    def begin(self) -> None:
        """Start an episode at the environment's present, forwarded state, after robosuite's own reset."""

    def step(self, action: np.ndarray) -> None:
        """Simulate one control step with ``action`` (action_dim,) float64; leaves the state forwarded."""


class StockStepping:
    """robosuite's own ``env.step``."""

    def __init__(self, env: MujocoEnv) -> None:
        self._env = env

    def begin(self) -> None:
        pass

    def step(self, action: np.ndarray) -> None:
        self._env.step(action)
        # robosuite ends its step with the integration: poses would lag behind the joints by one substep.
        self._env.sim.forward()


class FusedStepping:
    """``osc_kernel.control_step`` on the memory of one environment's model, for one built simulation."""

    def __init__(self, env: MujocoEnv) -> None:
        model, data = model_and_data(env)
        robot, controller = env.robots[0], env.robots[0].controller
        self._env = env
        self._model, self._data = model, data  # the views below live in their memory
        self._site = robot.eef_site_id
        self._substeps = int(env.control_timestep / env.model_timestep)

        dof = np.array(robot._ref_joint_vel_indexes)
        index_of_dof = np.full(model.nv, -1)
        index_of_dof[dof] = np.arange(len(dof))
        torque_min, torque_max = robot.torque_limits
        input_range, output_range = (
            controller.input_max - controller.input_min,
            controller.output_max - controller.output_min,
        )
        gripper_actuators = np.array(robot._ref_joint_gripper_actuator_indexes)
        gripper_low, gripper_high = model.actuator_ctrlrange[gripper_actuators].T
        self._arm = Arm(
            qpos=np.array(robot._ref_joint_pos_indexes),
            dof=dof,
            actuators=np.array(robot._ref_joint_actuator_indexes),
            torque_min=torque_min,
            torque_max=torque_max,
            dof_madr=model.dof_Madr.astype(np.int64),
            dof_parent=model.dof_parentid.astype(np.int64),
            index_of_dof=index_of_dof,
            kp=controller.kp.astype(float),
            kd=controller.kd.astype(float),
            input_min=controller.input_min.astype(float),
            input_max=controller.input_max.astype(float),
            input_center=(controller.input_max + controller.input_min) / 2.0,
            output_center=(controller.output_max + controller.output_min) / 2.0,
            scale=np.abs(output_range) / np.abs(input_range),
            gripper_actuators=gripper_actuators,
            gripper_center=0.5 * (gripper_high + gripper_low),
            gripper_half_range=0.5 * (gripper_high - gripper_low),
            gripper_direction=np.array([-1.0, 1.0]),  # PandaGripper.format_action
            gripper_speed=float(robot.gripper.speed),
        )
        self._sim = Sim(
            qpos=data.qpos,
            qvel=data.qvel,
            ctrl=data.ctrl,
            bias=data.qfrc_bias,
            mass=data.qM,
            site_pos=data.site_xpos[self._site],
            site_mat=data.site_xmat[self._site],
            jac_pos=np.zeros((3, model.nv)),
            jac_rot=np.zeros((3, model.nv)),
        )
        self.begin()

    def begin(self) -> None:
        controller = self._env.robots[0].controller
        self._goal = Goal(
            rotation=controller.goal_ori.copy(),
            posture=controller.initial_joint.copy(),
            gripper=np.zeros(len(self._arm.gripper_actuators)),
            first_mass=controller.mass_matrix.copy(),
            begun=np.zeros(1, bool),
        )

    def step(self, action: np.ndarray) -> None:
        control_step(
            self._model._address,
            self._data._address,
            self._site,
            self._substeps,
            action,
            self._arm,
            self._sim,
            self._goal,
        )
