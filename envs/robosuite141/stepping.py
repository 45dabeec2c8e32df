"""The fused control step of robosuite 1.4.1, equal to its own ``env.step``."""

from typing import Any

import numpy as np
from numba import njit

from envs.osc_kernel import Arm, Goal, Sim, rotation_of, scale_action, simulate
from envs.stepping import OscStepping


@njit(cache=True)
def set_goal(action: np.ndarray, arm: Arm, sim: Sim, goal: Goal) -> np.ndarray:
    """Update the desired orientation from ``action`` (6+,) and return the desired position (3,) in m.

    The orientation stays what it was while the action asks for no rotation.
    """
    delta = scale_action(action, arm)
    if delta[3] != 0.0 or delta[4] != 0.0 or delta[5] != 0.0:
        turn = rotation_of(delta[3:])
        for i in range(3):
            for j in range(3):
                goal.rotation[i, j] = 0.0
                for k in range(3):
                    goal.rotation[i, j] += turn[i, k] * sim.site_mat[3 * k + j]
    return sim.site_pos + delta[:3]


@njit(cache=True)
def control_step(
    model: int, data: int, site: int, substeps: int, action: np.ndarray, arm: Arm, sim: Sim, goal: Goal
) -> None:
    """One control step with ``action`` (6 + 1,): in the controller's input range, then the gripper (> 0 closes)."""
    goal_pos = set_goal(action, arm, sim, goal)
    simulate(model, data, site, substeps, goal_pos, np.sign(action[6]), arm, sim, goal)


class FusedStepping(OscStepping):
    """``control_step`` for one environment as it is built."""

    control_step = staticmethod(control_step)

    def _controller(self) -> Any:
        return self._env.robots[0].controller
