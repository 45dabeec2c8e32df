"""How a scripted operator moves: everything that varies from one demonstration to the next.

``proficient`` is one good operator: quick, nearly straight, with small tremor. ``mixed`` is a team of three of unequal
skill; the less skilled are slower and shakier, grasp further off, hesitate, and now and then wander on the way.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Style = Literal["proficient", "mixed"]


@dataclass(frozen=True)
class Skill:
    """The ranges that an operator's demonstrations are drawn from, uniformly."""

    speed: tuple[float, float]  # largest commanded translation, in action units
    gain: tuple[float, float]  # how much of the remaining way one action asks for
    tremor: tuple[float, float]  # standard deviation of the action noise at full speed, in action units
    grasp_offset: float  # half-width of the grasp point's error, metres
    yaw_offset: float  # half-width of the grasp's yaw error, radians
    hover: tuple[float, float]  # height kept above an object until the gripper is over it, metres
    pauses: tuple[int, int]  # control steps of hesitation before a grasp or a release, the upper bound excluded
    detour: float  # probability of an excursion on the way to the object
    detour_size: float  # how far an excursion leads, metres


PROFICIENT = Skill((0.6, 0.9), (1.2, 1.8), (0.03, 0.05), 0.004, 0.08, (0.02, 0.05), (0, 1), 0.0, 0.0)
FAIR = Skill((0.4, 0.7), (1.0, 1.6), (0.05, 0.09), 0.006, 0.15, (0.03, 0.08), (0, 6), 0.15, 0.06)
NOVICE = Skill((0.3, 0.55), (0.9, 1.4), (0.08, 0.14), 0.009, 0.25, (0.05, 0.11), (0, 14), 0.4, 0.10)
OPERATORS: dict[Style, tuple[Skill, ...]] = {"proficient": (PROFICIENT,), "mixed": (PROFICIENT, FAIR, NOVICE)}


@dataclass(frozen=True)
class Manner:
    """One demonstration's draw from an operator's skill; units as in `Skill`."""

    speed: float
    gain: float
    tremor: float
    grasp_offset: np.ndarray  # (3,), in the world's frame
    yaw_offset: float
    hover: float
    pauses: tuple[int, int]
    detour: np.ndarray | None  # (3,) displacement from the straight way, or None


def draw_manner(style: Style, rng: np.random.Generator) -> Manner:
    """Choose an operator of this style and draw how the next demonstration goes."""
    operators = OPERATORS[style]
    skill = operators[rng.integers(len(operators))]
    direction = rng.normal(size=3)
    detour = direction / np.linalg.norm(direction) * skill.detour_size * rng.uniform(0.5, 1.0)
    return Manner(
        speed=rng.uniform(*skill.speed),
        gain=rng.uniform(*skill.gain),
        tremor=rng.uniform(*skill.tremor),
        grasp_offset=rng.uniform(-skill.grasp_offset, skill.grasp_offset, size=3),
        yaw_offset=rng.uniform(-skill.yaw_offset, skill.yaw_offset),
        hover=rng.uniform(*skill.hover),
        pauses=skill.pauses,
        detour=detour if rng.random() < skill.detour else None,
    )
