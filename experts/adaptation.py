"""More demonstrations out of few: each is played again from other initial states, bent to where the object is now.

The idea is MimicGen's (Mandlekar et al. 2023): a grasp looks the same wherever the object lies, and where it is
carried to stays. So a demonstration's hand follows the object's displacement while it comes near, keeps to it for the
grasp, and gives it up on the way to the goal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from datamodules.demonstrations import Demonstration, by_key
from envs.tasks import find_task, object_pose_begin
from experts.expert import METRES_PER_UNIT, RADIANS_PER_UNIT
from rollouts.loop import Episode

OBSERVED = ("robot0_eef_pos", "robot0_eef_quat", "object")
NEAR = 0.12  # from here on the hand keeps to the object, metres
ARRIVED = 0.05  # from here on the object is at its goal, metres
HELD = 0.01  # an object that has moved so far since the fingers began to close is held, metres
LONGER = 20  # env steps that an adapted demonstration may take beyond the longest source
NEAREST = 5  # sources to choose from
METRE_IN_RADIANS = np.deg2rad(15) / 0.02  # 2 cm off is as far as 15 degrees
TREMOR = 0.1  # standard deviation of the noise on motions, in action units; on rotations half of it
CALM = 0.02  # the same once the object is at its goal
TREMOR_MEMORY = 0.8  # how much of the Ornstein-Uhlenbeck noise is left after one control step


@dataclass(frozen=True)
class Pose:
    """Where something is, or T such poses."""

    position: np.ndarray  # (3,) or (T, 3), metres
    rotation: Rotation

    @classmethod
    def read(cls, numbers: np.ndarray) -> "Pose":
        """From position and quaternion (x, y, z, w): (7,) or (T, 7)."""
        return cls(numbers[..., :3], Rotation.from_quat(numbers[..., 3:]))

    def __getitem__(self, t: int) -> "Pose":
        return Pose(self.position[t], self.rotation[t])

    def __matmul__(self, other: "Pose") -> "Pose":
        return Pose(self.position + self.rotation.apply(other.position), self.rotation * other.rotation)

    def inverse(self) -> "Pose":
        rotation = self.rotation.inv()
        return Pose(-rotation.apply(self.position), rotation)


@dataclass(frozen=True)
class Source:
    """A demonstration of T steps as targets for the hand."""

    target: Pose  # of the hand: what the actions ask for
    object_target: Pose  # where the object is when the hand, holding it, is there
    object: Pose
    gripper: np.ndarray  # (T,)
    held: np.ndarray  # (T,) whether the hand carries the object
    bend: np.ndarray  # (T,) share of the object's displacement that the hand follows
    arrived: np.ndarray  # (T,) whether the object is at its goal

    @classmethod
    def read(cls, demonstration: Demonstration, pose_begin: int) -> "Source":
        """From a demonstration whose ``object`` has position and quaternion from ``pose_begin`` on.

        Raises:
            ValueError: a quaternion is zero.
        """
        position, quat, observed = (demonstration.obs[key] for key in OBSERVED)
        motions, gripper = demonstration.actions[:, :6], demonstration.actions[:, 6]
        hand = Pose(position, Rotation.from_quat(quat))
        turned = Rotation.from_rotvec(motions[:, 3:] * RADIANS_PER_UNIT) * hand.rotation
        target = Pose(position + motions[:, :3] * METRES_PER_UNIT, turned)
        thing = Pose.read(observed[:, pose_begin : pose_begin + 7])
        opened = np.maximum.accumulate(np.where(gripper <= 0, np.arange(len(gripper)), 0))  # when, for the last time
        moved = np.linalg.norm(thing.position - thing.position[opened], axis=1)
        away = np.linalg.norm(position - thing.position, axis=1)
        near = np.clip(1 - (away - NEAR) / max(away[0] - NEAR, 1e-6), 0.0, 1.0)
        left = np.linalg.norm(thing.position[:, :2] - thing.position[-1, :2], axis=1)
        carried = left[0] > 2 * ARRIVED
        far = np.clip((left - ARRIVED) / (left[0] - ARRIVED), 0.0, 1.0) if carried else np.ones(len(left))
        return cls(
            target=target,
            object_target=target @ hand.inverse() @ thing,
            object=thing,
            gripper=gripper,
            held=(gripper > 0) & (moved > HELD),
            bend=np.maximum.accumulate(near) * np.minimum.accumulate(far),
            arrived=np.maximum.accumulate(left < ARRIVED) & carried,
        )


class Adapted:
    """A source on its way, bent to one initial state.

    Args:
        source: the demonstration.
        displacement: (2,) of the object from where it lies in the source, metres.
        turn: of the object about the vertical, radians.
        looks: (the object's frame) from the frame in which it looks like the source's, turned.
        rng: the episode's own generator.
    """

    def __init__(
        self, source: Source, displacement: np.ndarray, turn: float, looks: Rotation, rng: np.random.Generator
    ) -> None:
        self._source, self._displacement, self._turn, self._rng = source, displacement, turn, rng
        self._looks = looks
        self._step = 0
        self._tremor = np.zeros(6)

    def act(self, hand: Pose, thing: Pose) -> np.ndarray:
        """The next action (7,) for a hand and an object there; after the source's end towards its last target."""
        source, t = self._source, min(self._step, len(self._source.gripper) - 1)
        self._step += 1
        if source.held[t]:
            seen = Pose(thing.position, thing.rotation * self._looks)
            target = self._bent(source.object_target, t) @ seen.inverse() @ hand
        else:
            target = self._bent(source.target, t)
        move = (target.position - hand.position) / METRES_PER_UNIT
        turn = (target.rotation * hand.rotation.inv()).as_rotvec() / RADIANS_PER_UNIT
        self._tremor = TREMOR_MEMORY * self._tremor + np.sqrt(1 - TREMOR_MEMORY**2) * self._rng.normal(size=6)
        noise = (CALM if source.arrived[t] else TREMOR) * self._tremor * [1, 1, 1, 0.5, 0.5, 0.5]
        return np.append(np.clip(np.concatenate([move, turn]) + noise, -1.0, 1.0), source.gripper[t])

    def _bent(self, path: Pose, t: int) -> Pose:
        """A pose of the source's step t, turned about the object and displaced with it."""
        bend, centre = self._source.bend[t], self._source.object.position[t]
        rotation = Rotation.from_rotvec([0.0, 0.0, bend * self._turn])
        position = rotation.apply(path.position[t] - centre) + centre
        position[:2] += bend * self._displacement
        return Pose(position, rotation * path.rotation[t])


class AdaptingAgent:
    """Demonstrations, bent to each episode's initial state, for ``run_episodes`` with chunks of one action.

    Args:
        sources: to choose from.
        task: that brings one object somewhere (it has a ``yaw_period``).
        obs_dims: dimension of each observation key, in the flat observation's order.
    """

    def __init__(self, sources: Sequence[Source], task: str, obs_dims: Mapping[str, int]) -> None:
        record = find_task(task)
        assert record.yaw_period is not None
        pose_begin = object_pose_begin(record)
        self._sources = sources
        self._obs_dims = obs_dims
        self._pose = slice(pose_begin, pose_begin + 7)
        self._yaw_period = record.yaw_period
        self._playing: dict[int, Adapted] = {}

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """Actions (B, 1, 7) float32 for ``obs`` (B, obs_dim)."""
        named = by_key(obs, self._obs_dims)
        hands = np.concatenate([named[key] for key in OBSERVED[:2]], axis=1)
        things = named["object"][:, self._pose]
        chosen = []
        for episode, *poses in zip(episodes, hands, things, strict=True):
            hand, thing = map(Pose.read, poses)
            if episode.index not in self._playing:
                self._playing[episode.index] = self._begin(thing, episode.rng)
            chosen.append(self._playing[episode.index].act(hand, thing))
        return np.array(chosen, dtype=np.float32)[:, None]

    def _begin(self, thing: Pose, rng: np.random.Generator) -> Adapted:
        """One of the sources whose objects lie most alike, bent to the object's pose."""
        displacements = np.array([(thing.position - source.object.position[0])[:2] for source in self._sources])
        turns = np.array([self._turn(source, thing.rotation) for source in self._sources])
        unlike = METRE_IN_RADIANS * np.linalg.norm(displacements, axis=1) + np.abs(turns)
        chosen = int(rng.choice(np.argsort(unlike)[:NEAREST]))
        source, turn = self._sources[chosen], turns[chosen]
        looks = thing.rotation.inv() * Rotation.from_rotvec([0.0, 0.0, turn]) * source.object.rotation[0]
        return Adapted(source, displacements[chosen], turn, looks, rng)

    def _turn(self, source: Source, rotation: Rotation) -> float:
        """The object's turn about the vertical since ``source``, the shortest that looks like it."""
        if self._yaw_period == 0:
            return 0.0
        turn = (rotation * source.object.rotation[0].inv()).as_rotvec()[2]
        return turn - self._yaw_period * round(turn / self._yaw_period)
