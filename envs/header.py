"""What a version of robosuite says in the headers of Robomimic's low-dim files. Light to import."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class ObjectLayout:
    """How a version of robosuite puts ``object`` together from an object's own pose and how it lies for the hand."""

    pose_in_hand_first: bool  # before the own pose; a mere difference of positions comes after it in every version
    difference_from_hand: bool  # object minus hand where only positions are compared; else hand minus object
    relation_lags: bool  # a pose in the hand's frame is that of the previous observation's object


class Header(Protocol):
    """A folder's ``header`` module: what Robomimic's files say about this version."""

    SIMULATES: str  # in words, with the version
    SETUP: str  # the command that makes an environment with it
    PYTHON: str  # that environment's interpreter
    FILES: str  # Robomimic's name of the data files of this version
    RECORDED_KEYS: tuple[str, ...]  # the low-dim observations of these files
    OBJECT_LAYOUT: ObjectLayout

    def records(self, env_version: str) -> bool:
        """Whether files that state ``env_version`` were recorded by this version."""

    def env_args(self, env_name: str, robots: int = 1) -> dict[str, Any]:
        """What the header of Robomimic's low-dim file says for the environment ``env_name`` with so many Pandas."""

    def controller_fault(self, controller: dict[str, Any]) -> str | None:
        """What a robot's controller settings hold that this version does not take, or lack that it needs, in words."""


def osc_pose() -> dict[str, Any]:
    """The arm's controller in Robomimic's files.

    Some of it has no effect and is kept because the files have it: ``damping`` and ``damping_limits`` in both versions,
    ``control_delta`` in 1.5.
    """
    return {
        "type": "OSC_POSE",
        "input_max": 1,
        "input_min": -1,
        "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
        "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
        "kp": 150,
        "damping": 1,
        "impedance_mode": "fixed",
        "kp_limits": [0, 300],
        "damping_limits": [0, 10],
        "position_limits": None,
        "orientation_limits": None,
        "uncouple_pos_ori": True,
        "control_delta": True,
        "interpolation": None,
        "ramp_ratio": 0.2,
    }


def part_fault(where: str, part: dict[str, Any], kinds: tuple[str, ...]) -> str | None:
    """What a controller of one part of the robot has for a ``type``, or for the ranges of OSC_POSE, that cannot be."""
    kind = part.get("type")
    if kind not in kinds:
        return f"{where} is of the type {kind!r}, expected one of {', '.join(kinds)} (other versions have others)"
    # robosuite takes any count of these and stumbles, if at all, over the first action.
    for key in (
        ("kp", "damping_ratio", "input_max", "input_min", "output_max", "output_min") if kind == "OSC_POSE" else ()
    ):
        values = part.get(key, 1)
        listed = values if isinstance(values, list) and len(values) == 6 else [values]
        if not all(isinstance(value, int | float) for value in listed):
            return f"{where} has the {key} {values!r}, expected a number or six of them"
    return None


def low_dim_env_args(
    env_name: str, env_version: str, robots: int, controller_configs: dict[str, Any], **further: Any
) -> dict[str, Any]:
    """``env_args`` as low-dim files of every version have them; ``further`` are a version's own ``env_kwargs``."""
    return {
        "env_name": env_name,
        "env_version": env_version,
        "type": 1,
        "env_kwargs": {
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "ignore_done": True,
            "use_object_obs": True,
            "use_camera_obs": False,
            "control_freq": 20,
            "controller_configs": controller_configs,
            "robots": ["Panda"] * robots,
            "camera_depths": False,
            "camera_heights": 84,
            "camera_widths": 84,
            "reward_shaping": False,
            **further,
        },
    }
