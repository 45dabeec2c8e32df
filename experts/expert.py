"""What the three scripted experts share: reading the observation, servoing the hand, tremor, grasping.

An expert is a state machine on the flat observation. It moves on by what it sees (distances, the width between the
fingers), hardly ever by counting steps: a policy without memory, which sees the same, can then follow.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from envs.tasks import find_task, object_pose_begin
from experts.manner import Manner

# What one unit of action means to robosuite's OSC_POSE controller (its `output_max`).
METRES_PER_UNIT = 0.05
RADIANS_PER_UNIT = 0.5
OPEN, CLOSE = -1.0, 1.0
OPENED_WIDTH = 0.065  # between the fingers, metres; they open to 0.08
TREMOR_MEMORY = 0.75  # how much of the Ornstein-Uhlenbeck noise is left after one control step
TURN_SPEED = 0.6  # largest commanded rotation, in action units
DOWN = np.diag([1.0, -1.0, -1.0])  # the hand's orientation at yaw 0: fingers down, opening along the world's y


def wrap_angle(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def rotation_from_quat(quat: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of a unit quaternion (x, y, z, w)."""
    x, y, z, w = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def yaw_of(rotation: np.ndarray) -> float:
    """Angle of the frame's x axis about the world's z, radians."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) of a rotation matrix whose angle is below pi."""
    skew = 0.5 * np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine = np.linalg.norm(skew)
    angle = np.arctan2(sine, (np.trace(rotation) - 1) / 2)
    return skew if sine < 1e-9 else skew * (angle / sine)


def limited(vector: np.ndarray, largest: float) -> np.ndarray:
    """The vector, shortened to the norm ``largest`` where it is longer."""
    return vector * min(1.0, largest / max(float(np.linalg.norm(vector)), 1e-12))


def up(height: float) -> np.ndarray:
    """Vertical displacement (3,)."""
    return np.array([0.0, 0.0, height])


@dataclass(frozen=True)
class Scene:
    """One observation, taken apart. Positions in metres in the world's frame, yaws in radians."""

    hand: np.ndarray  # (3,)
    hand_rotation: np.ndarray  # (3, 3)
    width: float  # between the fingers
    object: np.ndarray  # (3,)
    object_yaw: float

    @property
    def hand_yaw(self) -> float:
        return yaw_of(self.hand_rotation)

    @classmethod
    def read(cls, obs: Mapping[str, np.ndarray], pose_begin: int = 0) -> "Scene":
        """From the named observations, of which `object` has position and quaternion from ``pose_begin`` on."""
        position, quat = obs["object"][pose_begin : pose_begin + 3], obs["object"][pose_begin + 3 : pose_begin + 7]
        return cls(
            hand=obs["robot0_eef_pos"],
            hand_rotation=rotation_from_quat(obs["robot0_eef_quat"]),
            width=float(obs["robot0_gripper_qpos"][0] - obs["robot0_gripper_qpos"][1]),
            object=position,
            object_yaw=yaw_of(rotation_from_quat(quat)),
        )


@dataclass(frozen=True)
class Target:
    """Where the hand should go next, how fast, and what the fingers do."""

    position: np.ndarray  # (3,)
    yaw: float
    gripper: float = OPEN
    haste: float = 1.0  # factor on the operator's speed


class Expert(ABC):
    """One demonstration's worth of scripted operator.

    Args:
        obs_dims: dimension of each observation key, in the flat observation's order.
        manner: how this demonstration goes.
        rng: the episode's own generator, so that the demonstration depends on nothing else.
    """

    task: str  # its short name
    pace: float = 1.0  # factor on the operator's speed: how much care the task asks for
    clearance: float  # height over the grasp at which the open fingers pass over the object, metres

    def __init__(self, obs_dims: Mapping[str, int], manner: Manner, rng: np.random.Generator) -> None:
        ends = np.cumsum(list(obs_dims.values())).tolist()
        self._slices = {key: slice(end - dim, end) for (key, dim), end in zip(obs_dims.items(), ends, strict=True)}
        self._pose_begin = object_pose_begin(find_task(self.task))
        self.manner = manner
        self._rng = rng
        self._tremor = np.zeros(6)
        self._detour = manner.detour
        self._pause = 0
        self._phase: Callable[[Scene], Target] = self.reach

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The next action (7,) in [-1, 1] for a flat observation (obs_dim,)."""
        named = {key: np.asarray(obs[part], dtype=np.float64) for key, part in self._slices.items()}
        scene = Scene.read(named, self._pose_begin)
        target = self._phase(scene)
        if self._pause > 0:
            self._pause -= 1
            target = Target(scene.hand, scene.hand_yaw, target.gripper)
        return self._servo(scene, target)

    @abstractmethod
    def reach(self, scene: Scene) -> Target:
        """The first phase: bring the open gripper to the object."""

    def enter(self, phase: Callable[[Scene], Target], scene: Scene) -> Target:
        """Go over to another phase and take its first target at once."""
        self._phase = phase
        return phase(scene)

    def hesitate(self) -> None:
        """Stand still for as long as this operator does before something delicate."""
        self._pause = int(self._rng.integers(*self.manner.pauses))

    def approach(self, scene: Scene, goal: np.ndarray, yaw: float, yaw_tolerance: float = 0.25) -> Target:
        """Move over the goal, then down to it: the height follows the distance left, so the way is one curve."""
        if self._detour is not None:
            via = goal + self._detour + up(0.10)
            if np.linalg.norm(via - scene.hand) > 0.03:
                return Target(via, yaw)
            self._detour = None
        off = float(np.linalg.norm(goal[:2] - scene.hand[:2]))
        turned = abs(wrap_angle(yaw - scene.hand_yaw))
        hover = self.clearance + self.manner.hover
        ready = turned < yaw_tolerance and scene.width > OPENED_WIDTH
        above = np.clip(4.0 * (off - 0.008), 0.0, hover) if ready else hover
        return Target(goal + up(above), yaw)

    def _servo(self, scene: Scene, target: Target) -> np.ndarray:
        """Proportional control towards the target, with tremor that grows with the motion (Harris & Wolpert 1998)."""
        manner = self.manner
        move = manner.gain * (target.position - scene.hand) / METRES_PER_UNIT
        speed = self.pace * manner.speed * target.haste
        move = np.append(limited(move[:2], speed), limited(move[2:], speed))
        cosine, sine = np.cos(target.yaw), np.sin(target.yaw)
        wanted = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) @ DOWN
        turn = manner.gain * rotation_vector(wanted @ scene.hand_rotation.T) / RADIANS_PER_UNIT
        turn = limited(turn, TURN_SPEED * speed)
        fresh = self._rng.normal(size=6) * np.sqrt(1 - TREMOR_MEMORY**2)
        self._tremor = TREMOR_MEMORY * self._tremor + fresh
        effort = 0.4 + 0.6 * np.linalg.norm(move)
        noise = manner.tremor * effort * self._tremor * [1, 1, 1, 0.4, 0.4, 0.4]
        return np.clip(np.concatenate([np.concatenate([move, turn]) + noise, [target.gripper]]), -1.0, 1.0)
