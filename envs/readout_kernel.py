"""Observations and success in compiled code: what robosuite's Python computes in 30-300 us, read in about 3.

After the physics of a control step the caches are cold, and robosuite's many small Python calls cost several times
what they cost in a tight loop. The formulas are robosuite's; which numbers they apply to is a matter of
``envs.readout``.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from envs.robosuite_common import mat2quat, quat2mat

SITE_XPOS, XQUAT, QPOS, QVEL = range(4)
BODY, BODY_MATRIX, SITE, GEOM = range(4)
HAND_MINUS_OBJECT, OBJECT_MINUS_HAND, POSE_IN_HAND = range(3)


class Memory(NamedTuple):
    """Views of MuJoCo's own memory."""

    xpos: np.ndarray  # (nbody, 3)
    xquat: np.ndarray  # (nbody, 4), w first
    xmat: np.ndarray  # (nbody, 9)
    site_xpos: np.ndarray  # (nsite, 3)
    site_xmat: np.ndarray  # (nsite, 9)
    geom_xpos: np.ndarray  # (ngeom, 3)
    geom_xmat: np.ndarray  # (ngeom, 9)
    qpos: np.ndarray
    qvel: np.ndarray


class Plan(NamedTuple):
    """An observation: numbers that are copied, then n objects and how they lie for the hand."""

    source: np.ndarray  # (copied,) which array: SITE_XPOS, XQUAT, QPOS or QVEL ...
    address: np.ndarray  # (copied,) ... which of its numbers, flat ...
    target: np.ndarray  # (copied,) ... goes where in the observation
    kinds: np.ndarray  # (n,) BODY, BODY_MATRIX, SITE or GEOM
    objects: np.ndarray  # (n,) their numbers
    own_target: np.ndarray  # (n,) where in the observation a pose begins
    relation: int  # a difference of positions (3 numbers) or POSE_IN_HAND (3 + 4)
    relation_target: np.ndarray  # (n,) where in the observation it begins
    lags: bool  # whether relations are of the poses that the observation before had
    site: int  # the grip site
    hand: int  # the hand's body
    size: int  # of the observation


class Region(NamedTuple):
    """Success: some body's centre is in its box and, where ``reach`` asks for it, the hand is off it."""

    bodies: np.ndarray  # (n,)
    low: np.ndarray  # (n, 3) m, excluded
    high: np.ndarray  # (n, 3) m, excluded
    site: int  # the grip site
    reach: float  # 1 - tanh(10 distance between hand and body) must be below this


@njit(cache=True)
def read_pose(memory: Memory, kind: int, number: int, out: np.ndarray) -> None:
    """Write position (3,) and quaternion (4,), x first, of an object to ``out`` (7,)."""
    if kind == BODY:
        out[:3] = memory.xpos[number]
        for i in range(4):
            out[3 + i] = memory.xquat[number, (i + 1) % 4]
        return
    if kind == BODY_MATRIX:
        out[:3] = memory.xpos[number]
        matrix = memory.xmat[number]
    elif kind == SITE:
        out[:3] = memory.site_xpos[number]
        matrix = memory.site_xmat[number]
    else:
        out[:3] = memory.geom_xpos[number]
        matrix = memory.geom_xmat[number]
    out[3:] = mat2quat(matrix.reshape(3, 3))


@njit(cache=True)
def read_poses(memory: Memory, plan: Plan, out: np.ndarray) -> None:
    """Write the poses of the plan's objects to ``out`` (n, 7)."""
    for i in range(len(plan.objects)):
        read_pose(memory, plan.kinds[i], plan.objects[i], out[i])


@njit(cache=True)
def pose_in_hand(memory: Memory, plan: Plan, pose: np.ndarray, out: np.ndarray) -> None:
    """Write an object's ``pose`` (7,), position and quaternion, x first, to ``out`` (7,) as it is in the hand's frame.

    As robosuite does with ``pose2mat``, ``pose_inv`` and ``mat2pose``, which round to single precision on the way.
    """
    hand_pose = np.empty(7)
    read_pose(memory, BODY, plan.hand, hand_pose)
    hand = quat2mat(hand_pose[3:]).astype(np.float32).astype(np.float64)
    turned = quat2mat(pose[3:].copy()).astype(np.float32).astype(np.float64)
    hand_pos = memory.site_xpos[plan.site].astype(np.float32).astype(np.float64)
    object_pos = pose[:3].astype(np.float32).astype(np.float64)
    rotation = np.zeros((3, 3))
    for i in range(3):
        out[i] = 0.0
        offset = 0.0
        for k in range(3):
            out[i] += hand[k, i] * object_pos[k]
            offset += hand[k, i] * hand_pos[k]
            for j in range(3):
                rotation[i, j] += hand[k, i] * turned[k, j]
        out[i] -= offset
    out[3:] = mat2quat(rotation)


@njit(cache=True)
def read(memory: Memory, plan: Plan, last: np.ndarray) -> np.ndarray:
    """The observation (size,) of the present, forwarded state.

    Args:
        memory: of the simulation.
        plan: what to read.
        last: (n, 7) the objects' poses in the observation before, used where the plan ``lags``.
    """
    out = np.empty(plan.size)
    for i in range(len(plan.source)):
        source, address = plan.source[i], plan.address[i]
        if source == SITE_XPOS:
            value = memory.site_xpos[address // 3, address % 3]
        elif source == XQUAT:
            value = memory.xquat[address // 4, address % 4]
        elif source == QPOS:
            value = memory.qpos[address]
        else:
            value = memory.qvel[address]
        out[plan.target[i]] = value
    for i in range(len(plan.objects)):
        begin = plan.own_target[i]
        pose = out[begin : begin + 7]
        read_pose(memory, plan.kinds[i], plan.objects[i], pose)
        begin = plan.relation_target[i]
        if plan.relation == POSE_IN_HAND:
            pose_in_hand(memory, plan, last[i] if plan.lags else pose, out[begin : begin + 7])
        else:
            sign = 1.0 if plan.relation == HAND_MINUS_OBJECT else -1.0
            for k in range(3):
                out[begin + k] = sign * (memory.site_xpos[plan.site, k] - pose[k])
    return out


@njit(cache=True)
def succeeded(memory: Memory, region: Region) -> bool:
    """Whether the task is solved in the present, forwarded state."""
    for i in range(len(region.bodies)):
        position = memory.xpos[region.bodies[i]]
        inside = True
        square = 0.0
        for k in range(3):
            inside = inside and region.low[i, k] < position[k] < region.high[i, k]
            square += (memory.site_xpos[region.site, k] - position[k]) ** 2
        if inside and 1.0 - math.tanh(10.0 * math.sqrt(square)) < region.reach:
            return True
    return False
