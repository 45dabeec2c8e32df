"""The fused control step of robosuite 1.5's composite controller BASIC with OSC_POSE, equal to its own ``env.step``."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from envs.osc_kernel import Arm, Goal, Sim, rotation_of, scale_action, simulate
from envs.stepping import OscStepping


class Frame(NamedTuple):
    """The frame that actions and goals are in: the controller's ``input_ref_frame``."""

    position: np.ndarray  # (3,) m, in the world
    rotation: np.ndarray  # (3, 3)


@njit(cache=True)
def set_goal(action: np.ndarray, arm: Arm, sim: Sim, goal: Goal, frame: Frame) -> np.ndarray:
    """Update the desired orientation from ``action`` (6+,) and return the desired position (3,) in m, in the world."""
    delta = scale_action(action, arm)
    to_frame = frame.rotation.T.copy()
    in_frame = to_frame @ sim.site_pos - to_frame @ frame.position + delta[:3]
    rotation = to_frame @ sim.site_mat.reshape(3, 3)
    if delta[3] != 0.0 or delta[4] != 0.0 or delta[5] != 0.0:
        rotation = rotation_of(delta[3:]).astype(np.float64) @ rotation
    goal.rotation[:] = frame.rotation @ rotation
    return frame.position + frame.rotation @ in_frame


@njit(cache=True)
def control_step(
    model: int,
    data: int,
    site: int,
    substeps: int,
    action: np.ndarray,
    arm: Arm,
    sim: Sim,
    goal: Goal,
    frame: Frame,
) -> None:
    """One control step with ``action`` (6 + 1,): in the controller's input range, then the gripper (> 0 closes)."""
    goal_pos = set_goal(action, arm, sim, goal, frame)
    simulate(model, data, site, substeps, goal_pos, np.sign(action[6]), arm, sim, goal)


class FusedStepping(OscStepping):
    """``control_step`` for one environment as it is built."""

    control_step = staticmethod(control_step)
    gripper_substeps = 1

    def _controller(self) -> Any:
        (side,) = self._env.robots[0].arms
        return self._env.robots[0].part_controllers[side]

    def begin(self) -> None:
        super().begin()
        controller = self._controller()
        if controller.input_ref_frame == "base":
            # Of the arm's base, which does not move.
            frame = Frame(np.array(controller.origin_pos), np.array(controller.origin_ori))
        else:
            frame = Frame(np.zeros(3), np.eye(3))
        self._further = (frame,)
