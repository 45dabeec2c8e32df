"""Observations and success in compiled code: what robosuite's Python computes in 30-300 us, read in about 3.

After the physics of a control step the caches are cold, and robosuite's many small Python calls cost several times
what they cost in a tight loop. The formulas are robosuite 1.4.1's; which numbers they apply to is a matter of
``robosuite141.readout``.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from envs.robosuite141.build import mat2quat, quat2mat

SITE_XPOS, XPOS, XQUAT, QPOS, QVEL = range(5)
NO_RELATION, DIFFERENCE, POSE_IN_HAND = range(3)


class Memory(NamedTuple):
    """Views of MuJoCo's own memory."""

    site_xpos: np.ndarray  # (nsite, 3)
    xpos: np.ndarray  # (nbody, 3)
    xquat: np.ndarray  # (nbody, 4), w first
    qpos: np.ndarray
    qvel: np.ndarray


class Plan(NamedTuple):
    """An observation: numbers that are copied, then how the object lies relative to the hand."""

    source: np.ndarray  # (copied,) which array: SITE_XPOS, XPOS, XQUAT, QPOS or QVEL ...
    address: np.ndarray  # (copied,) ... which of its numbers, flat ...
    target: np.ndarray  # (copied,) ... goes where in the observation
    relation: int  # NO_RELATION, DIFFERENCE (3 numbers) or POSE_IN_HAND (3 + 4)
    relation_target: int  # where in the observation it begins
    site: int  # the grip site
    hand: int  # the hand's body
    object: int  # the object's body
    size: int  # of the observation


class Region(NamedTuple):
    """Success: some body's centre is in its box and, where ``reach`` asks for it, the hand is off it."""

    bodies: np.ndarray  # (n,)
    low: np.ndarray  # (n, 3) m, excluded
    high: np.ndarray  # (n, 3) m, excluded
    site: int  # the grip site
    reach: float  # 1 - tanh(10 distance between hand and body) must be below this


@njit(cache=True)
def pose_in_hand(memory: Memory, plan: Plan, out: np.ndarray) -> None:
    """Write position (3,) and quaternion (4,), x first, of the object in the hand's frame to ``out`` (7,).

    As robosuite does with ``pose2mat``, ``pose_inv`` and ``mat2pose``, which round to single precision on the way.
    """
    hand_quat = np.empty(4)
    object_quat = np.empty(4)
    for i in range(4):
        hand_quat[i] = memory.xquat[plan.hand, (i + 1) % 4]
        object_quat[i] = memory.xquat[plan.object, (i + 1) % 4]
    hand = quat2mat(hand_quat).astype(np.float32).astype(np.float64)
    turned = quat2mat(object_quat).astype(np.float32).astype(np.float64)
    hand_pos = memory.site_xpos[plan.site].astype(np.float32).astype(np.float64)
    object_pos = memory.xpos[plan.object].astype(np.float32).astype(np.float64)
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
def read(memory: Memory, plan: Plan) -> np.ndarray:
    """The observation (size,) of the present, forwarded state."""
    out = np.empty(plan.size)
    for i in range(len(plan.source)):
        source, address = plan.source[i], plan.address[i]
        if source == SITE_XPOS:
            value = memory.site_xpos[address // 3, address % 3]
        elif source == XPOS:
            value = memory.xpos[address // 3, address % 3]
        elif source == XQUAT:
            value = memory.xquat[address // 4, address % 4]
        elif source == QPOS:
            value = memory.qpos[address]
        else:
            value = memory.qvel[address]
        out[plan.target[i]] = value
    if plan.relation == DIFFERENCE:
        for i in range(3):
            out[plan.relation_target + i] = memory.site_xpos[plan.site, i] - memory.xpos[plan.object, i]
    elif plan.relation == POSE_IN_HAND:
        pose_in_hand(memory, plan, out[plan.relation_target : plan.relation_target + 7])
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
