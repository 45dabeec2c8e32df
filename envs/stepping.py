"""Two ways to simulate one control step of a robosuite environment: its own, and the fused one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from envs.osc_kernel import Arm, Goal, Sim
from envs.robosuite_common import ArmAddresses, MujocoEnv, model_and_data


def mass_addresses(model: Any, dof: Sequence[int]) -> np.ndarray:
    """Where in MuJoCo's sparse mass matrix the lower triangle (n, n) of a chain of joints is.

    A row lists a joint's ancestors and the joint itself: ``data.M``, in the order of their numbers; before MuJoCo 3.3
    ``data.qM``, in the opposite order.
    """
    addresses = np.zeros((len(dof), len(dof)), dtype=np.int64)
    for j, row in enumerate(dof):
        if hasattr(model, "M_rowadr"):
            begin, count = model.M_rowadr[row], model.M_rownnz[row]
            where = {int(column): begin + k for k, column in enumerate(model.M_colind[begin : begin + count])}
        else:
            where, ancestor = {}, row
            while ancestor >= 0:
                where[int(ancestor)] = model.dof_Madr[row] + len(where)
                ancestor = model.dof_parentid[ancestor]
        for i in range(j + 1):
            addresses[j, i] = where[int(dof[i])]
    return addresses


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


class OscStepping:
    """``osc_kernel`` on the memory of one environment's model as it is now built.

    A version's folder adds ``control_step``, which is compiled, and ``_controller``, robosuite's present one.
    """

    control_step: Callable[..., None]
    _further: tuple[Any, ...] = ()  # what this version's control_step takes beside the rest
    # In how many substeps of a control step robosuite moves the gripper's target; None: in all.
    gripper_substeps: int | None = None

    def __init__(self, env: MujocoEnv, addresses: ArmAddresses) -> None:
        model, data = model_and_data(env)
        controller = addresses.controller
        self._env = env
        self._model, self._data = model, data  # the views below live in their memory
        self._site = addresses.site
        self._substeps = int(env.control_timestep / env.model_timestep)

        dof = np.array(addresses.dof)
        input_range, output_range = (
            controller.input_max - controller.input_min,
            controller.output_max - controller.output_min,
        )
        gripper_actuators = np.array(addresses.gripper_actuators)
        gripper_low, gripper_high = model.actuator_ctrlrange[gripper_actuators].T
        self._arm = Arm(
            qpos=np.array(addresses.qpos),
            dof=dof,
            actuators=np.array(addresses.actuators),
            torque_min=np.array(addresses.torque_min),
            torque_max=np.array(addresses.torque_max),
            mass_address=mass_addresses(model, addresses.dof),
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
            gripper_speed=float(addresses.gripper.speed),
            gripper_substeps=self._substeps if self.gripper_substeps is None else self.gripper_substeps,
        )
        self._sim = Sim(
            qpos=data.qpos,
            qvel=data.qvel,
            ctrl=data.ctrl,
            bias=data.qfrc_bias,
            mass=data.M if hasattr(data, "M") else data.qM,
            site_pos=data.site_xpos[self._site],
            site_mat=data.site_xmat[self._site],
            jac_pos=np.zeros((3, model.nv)),
            jac_rot=np.zeros((3, model.nv)),
        )
        self.begin()

    def _controller(self) -> Any:
        raise NotImplementedError

    def begin(self) -> None:
        """Take over what robosuite's controller remembers right after its reset."""
        controller = self._controller()
        self._goal = Goal(
            rotation=controller.goal_ori.copy(),
            posture=controller.initial_joint.copy(),
            gripper=np.zeros(len(self._arm.gripper_actuators)),
            first_mass=controller.mass_matrix.copy(),
            begun=np.zeros(1, bool),
        )

    def step(self, action: np.ndarray) -> None:
        addresses = (self._model._address, self._data._address)
        memory = (self._arm, self._sim, self._goal)
        self.control_step(*addresses, self._site, self._substeps, action, *memory, *self._further)
