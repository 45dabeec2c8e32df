"""What MuJoCo changed from 3.10 on, given back to robosuite, which calls it as it was."""

from typing import Any

import mujoco
import numpy as np


def give_back() -> None:
    """Make robosuite's own calls work on the installed MuJoCo; to be called once robosuite is imported.

    From 3.10 on ``mj_fullM`` takes the data in place of their ``qM``, which is gone; and an enum equals no number of
    numpy's, which robosuite looks up in tuples of them.
    """
    if hasattr(mujoco.MjData, "qM"):
        return
    from robosuite.utils import binding_utils

    full_inertia = mujoco.mj_fullM

    def mj_fullM(model: mujoco.MjModel, dst: np.ndarray, data: mujoco.MjData) -> None:  # noqa: N802 - MuJoCo's name
        full_inertia(model, data, dst)

    mujoco.mj_fullM = mj_fullM
    binding_utils.MjData.qM = property(lambda self: self._data)

    def equals(self: Any, other: Any) -> bool:
        return int(self) == other

    mujoco.mjtJoint.__eq__ = equals
