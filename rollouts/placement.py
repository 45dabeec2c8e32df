"""Where the object lay when an episode began, read from its first observation."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from envs.tasks import TASKS, object_pose_begin

Locate = Callable[[np.ndarray], list[float]]


def object_locator(task: str | None, obs_dims: Mapping[str, int]) -> Locate | None:
    """A function from an observation (D,) to the object's [x, y, yaw] (m, m, rad), of a task's first object.

    Args:
        task: short name; None, or one whose objects are not observed as poses: there is no such function.
        obs_dims: dimension of each observed key, in order; without ``object`` there is none either.
    """
    if task not in TASKS or not TASKS[task].objects or "object" not in obs_dims:
        return None
    keys = list(obs_dims)
    begin = sum(obs_dims[key] for key in keys[: keys.index("object")]) + object_pose_begin(TASKS[task])

    def locate(obs: np.ndarray) -> list[float]:
        x, y, _, qx, qy, qz, qw = (float(value) for value in obs[begin : begin + 7])
        yaw = math.atan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))
        return [round(value, 4) for value in (x, y, yaw)]

    return locate
