"""Operational space control in compiled code: every physics step of a control step, by MuJoCo's own two half steps.

What the controller is to reach, and what the gripper does meanwhile, differs between versions of robosuite: that is in
their folders' ``stepping``.

The functions of MuJoCo's library are called from the compiled loop itself, so that a control step costs one call from
Python. The compiled code is cached on disk beside this file, else where ``envs.numba_cache`` says.

Formulas: O. Khatib, "A unified approach for motion and force control of robot manipulators" (1987), as robosuite
codes them in ``controllers/osc.py`` and ``utils/control_utils.py``. Inverses are replaced by Cholesky solves, and the
null-space torque N^T M a is computed as M a - J^T Lambda J a, which is the same because N = I - M^-1 J^T Lambda J.
"""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import mujoco
import numpy as np
from numba import njit, types

from common.errors import UserError
from envs.robosuite_common import quat2mat


def _load_mujoco() -> None:
    """Make the symbols of the library that the ``mujoco`` wheel carries known to the compiler."""
    folder = Path(os.path.dirname(mujoco.__file__))
    libraries = sorted(folder.glob("libmujoco*.so*")) + sorted(folder.glob("libmujoco*.dylib"))
    if not libraries:
        raise UserError(f"MuJoCo's library is not in {folder}: reinstall the mujoco package from its wheel.")
    llvm.load_library_permanently(str(libraries[0]))


_load_mujoco()
_HALF_STEP: Any = types.void(types.intp, types.intp)
_mj_step1: Any = types.ExternalFunction("mj_step1", _HALF_STEP)
_mj_step2: Any = types.ExternalFunction("mj_step2", _HALF_STEP)
_mj_jac_site: Any = types.ExternalFunction(
    "mj_jacSite", types.void(types.intp, types.intp, types.intp, types.intp, types.int32)
)


class Arm(NamedTuple):
    """What stays the same over an episode. n joints, nv degrees of freedom of the whole model."""

    qpos: np.ndarray  # (n,) addresses of the joints in qpos
    dof: np.ndarray  # (n,) addresses in qvel, from base to hand
    actuators: np.ndarray  # (n,)
    torque_min: np.ndarray  # (n,) N m
    torque_max: np.ndarray  # (n,) N m
    mass_address: np.ndarray  # (n, n) where the lower triangle of the mass matrix is in MuJoCo's sparse one
    kp: np.ndarray  # (6,) stiffness
    kd: np.ndarray  # (6,) damping
    input_min: np.ndarray  # (6,) actions are clipped to this range ...
    input_max: np.ndarray  # (6,)
    input_center: np.ndarray  # (6,) ... and mapped linearly to m and rad
    output_center: np.ndarray  # (6,)
    scale: np.ndarray  # (6,)
    gripper_actuators: np.ndarray  # (g,)
    gripper_center: np.ndarray  # (g,) middle of the actuators' control range
    gripper_half_range: np.ndarray  # (g,)
    gripper_direction: np.ndarray  # (g,) +1 or -1: which way "close" moves each finger
    gripper_speed: float  # share of the half range per substep ...
    gripper_substeps: int  # ... in the first so many substeps of a control step


class Sim(NamedTuple):
    """Views of MuJoCo's own memory."""

    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray
    bias: np.ndarray  # qfrc_bias: gravity and Coriolis
    mass: np.ndarray  # the sparse mass matrix
    site_pos: np.ndarray  # (3,) of the grip site
    site_mat: np.ndarray  # (9,)
    jac_pos: np.ndarray  # (3, nv) scratch
    jac_rot: np.ndarray  # (3, nv) scratch


class Goal(NamedTuple):
    """What robosuite's controller and gripper remember between control steps."""

    rotation: np.ndarray  # (3, 3) desired orientation
    posture: np.ndarray  # (n,) joint angles that the null-space torques hold: those at reset
    gripper: np.ndarray  # (g,) in [-1, 1]
    first_mass: np.ndarray  # (n, n) mass matrix for the first substep of an episode: see `resets.reset_to_state`
    begun: np.ndarray  # (1,) whether that substep is over


@njit(cache=True)
def cholesky(a: np.ndarray, lower: np.ndarray) -> bool:
    """Write the Cholesky factor of ``a`` (n, n) to ``lower``; False where ``a`` is not positive definite."""
    n = a.shape[0]
    for j in range(n):
        pivot = a[j, j]
        for k in range(j):
            pivot -= lower[j, k] * lower[j, k]
        if pivot <= 1e-14 * a[j, j]:
            return False
        root = math.sqrt(pivot)
        lower[j, j] = root
        for i in range(j + 1, n):
            rest = a[i, j]
            for k in range(j):
                rest -= lower[i, k] * lower[j, k]
            lower[i, j] = rest / root
    return True


@njit(cache=True)
def solve(lower: np.ndarray, n: int, b: np.ndarray) -> None:
    """Solve L L^T x = b in place, with the leading (n, n) block of ``lower``."""
    for i in range(n):
        for k in range(i):
            b[i] -= lower[i, k] * b[k]
        b[i] /= lower[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= lower[k, i] * b[k]
        b[i] /= lower[i, i]


@njit(cache=True)
def scale_action(action: np.ndarray, arm: Arm) -> np.ndarray:
    """Displacement (3,) in m and rotation vector (3,) in rad that ``action`` (6+,) asks for."""
    delta = np.empty(6)
    for i in range(6):
        clipped = min(max(action[i], arm.input_min[i]), arm.input_max[i])
        delta[i] = (clipped - arm.input_center[i]) * arm.scale[i] + arm.output_center[i]
    return delta


@njit(cache=True)
def rotation_of(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of a rotation vector (3,) that is not zero."""
    angle = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    quat = np.empty(4)  # (x, y, z, w)
    for i in range(3):
        quat[i] = vector[i] / angle * math.sin(angle / 2)
    quat[3] = math.cos(angle / 2)
    # robosuite's own function, because it rounds to single precision in a way that is hard to repeat otherwise.
    return quat2mat(quat)


@njit(cache=True)
def wrench(
    task_inertia_inv: np.ndarray, force: np.ndarray, null_acc: np.ndarray, lower6: np.ndarray, lower3: np.ndarray
) -> None:
    """Turn desired accelerations into the wrench (6,) on the hand, in ``force`` itself.

    ``task_inertia_inv`` is J M^-1 J^T (6, 6); ``force`` holds the desired linear and angular acceleration (6,),
    decoupled as in robosuite's ``uncouple_pos_ori``; ``null_acc`` (6,) is J a of the null-space acceleration, which is
    taken out.
    """
    if cholesky(task_inertia_inv, lower6) and cholesky(task_inertia_inv[3:, 3:], lower3):
        solve(lower6, 6, null_acc)
        solve(lower6, 3, force[:3])
        solve(lower3, 3, force[3:])
    else:
        # At a singular pose robosuite's pseudo-inverses drop the directions that the arm cannot move in.
        null_acc[:] = np.linalg.pinv(task_inertia_inv) @ null_acc
        force[:3] = np.linalg.pinv(task_inertia_inv[:3, :3]) @ force[:3]
        force[3:] = np.linalg.pinv(task_inertia_inv[3:, 3:]) @ force[3:]
    for i in range(6):
        force[i] -= null_acc[i]


@njit(cache=True)
def simulate(
    model: int,
    data: int,
    site: int,
    substeps: int,
    goal_pos: np.ndarray,
    close: float,
    arm: Arm,
    sim: Sim,
    goal: Goal,
) -> None:
    """Advance the simulation by one control step towards ``goal_pos`` and ``goal.rotation``.

    On entry the state must be forwarded (by ``mj_forward`` or an earlier call); on return positions, contacts and
    velocities are those of the new state, so that observations need no further forward pass.

    Args:
        model, data: addresses of ``mjModel`` and ``mjData``.
        site: number of the grip site.
        substeps: physics steps per control step.
        goal_pos: (3,) m.
        close: 1 closes the gripper, -1 opens it, 0 leaves it.
    """
    n = arm.dof.shape[0]
    jac_pos, jac_rot = sim.jac_pos.ctypes.data, sim.jac_rot.ctypes.data
    jac = np.empty((6, n))
    mass = np.zeros((n, n))
    lower = np.empty((n, n))
    half = np.empty((6, n))  # rows solve L y = J^T, so that half half^T = J M^-1 J^T
    inertia_inv = np.empty((6, 6))
    lower6 = np.empty((6, 6))
    lower3 = np.empty((3, 3))
    acc = np.empty(n)
    force = np.empty(6)
    null_acc = np.empty(6)
    null_kp, null_kd = 10.0, 2.0 * math.sqrt(10.0)

    for substep in range(substeps):
        _mj_jac_site(model, data, jac_pos, jac_rot, site)
        for j in range(n):
            dof = arm.dof[j]
            for i in range(3):
                jac[i, j] = sim.jac_pos[i, dof]
                jac[i + 3, j] = sim.jac_rot[i, dof]
            for i in range(j + 1):
                mass[i, j] = mass[j, i] = sim.mass[arm.mass_address[j, i]]
            acc[j] = null_kp * (goal.posture[j] - sim.qpos[arm.qpos[j]]) - null_kd * sim.qvel[arm.dof[j]]

        if not goal.begun[0]:
            mass[:] = goal.first_mass
            goal.begun[0] = True
        cholesky(mass, lower)
        for row in range(6):
            velocity = 0.0
            null_acc[row] = 0.0
            for j in range(n):
                velocity += jac[row, j] * sim.qvel[arm.dof[j]]
                null_acc[row] += jac[row, j] * acc[j]
                rest = jac[row, j]
                for k in range(j):
                    rest -= lower[j, k] * half[row, k]
                half[row, j] = rest / lower[j, j]
            if row < 3:
                error = goal_pos[row] - sim.site_pos[row]
            else:
                # Half the sum of the cross products of present and desired axes (columns).
                a, b = (row - 2) % 3, (row - 1) % 3
                error = 0.0
                for k in range(3):
                    error += (
                        sim.site_mat[3 * a + k] * goal.rotation[b, k] - sim.site_mat[3 * b + k] * goal.rotation[a, k]
                    )
                error *= 0.5
            force[row] = arm.kp[row] * error - arm.kd[row] * velocity
        for i in range(6):
            for j in range(i + 1):
                total = 0.0
                for k in range(n):
                    total += half[i, k] * half[j, k]
                inertia_inv[i, j] = inertia_inv[j, i] = total
        wrench(inertia_inv, force, null_acc, lower6, lower3)

        for j in range(n):
            torque = sim.bias[arm.dof[j]]
            for i in range(6):
                torque += jac[i, j] * force[i]
            for k in range(n):
                torque += mass[j, k] * acc[k]
            sim.ctrl[arm.actuators[j]] = min(max(torque, arm.torque_min[j]), arm.torque_max[j])
        for i in range(goal.gripper.shape[0]):
            if substep < arm.gripper_substeps:
                moved = goal.gripper[i] + arm.gripper_direction[i] * arm.gripper_speed * close
                goal.gripper[i] = min(max(moved, -1.0), 1.0)
            sim.ctrl[arm.gripper_actuators[i]] = arm.gripper_center[i] + arm.gripper_half_range[i] * goal.gripper[i]

        _mj_step2(model, data)
        _mj_step1(model, data)
