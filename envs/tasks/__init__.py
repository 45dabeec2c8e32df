"""The tasks by name, one file each, and what a Robomimic v141 header says about them. Light to import."""

import warnings
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal

from common.errors import UserError
from envs.tasks.can import CAN
from envs.tasks.lift import LIFT
from envs.tasks.square import SQUARE
from envs.tasks.task import Task

DEFAULT_OBS_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")

TASKS: dict[str, Task] = {task.name: task for task in (LIFT, CAN, SQUARE)}

# The type of a `--task` flag: the parser refuses and lists names by it.
if TYPE_CHECKING:
    TaskName = str
else:
    TaskName = Literal[tuple(TASKS)]

# The controller of Robomimic's v141 files. robosuite 1.4.1 ignores `damping` and `damping_limits` in favour of its own
# `damping_ratio` (1); they are kept because the files have them.
_OSC_POSE: dict[str, Any] = {
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


def find_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        UserError: there is none of that name.
    """
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}.")
    return TASKS[name]


def default_env_args(task: str) -> dict[str, Any]:
    """What the header of Robomimic's low-dim v141 file says for ``task``: name, version and arguments of its env."""
    return {
        "env_name": find_task(task).env_name,
        "env_version": "1.4.1",
        "type": 1,
        "env_kwargs": {
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "ignore_done": True,
            "use_object_obs": True,
            "use_camera_obs": False,
            "control_freq": 20,
            "controller_configs": deepcopy(_OSC_POSE),
            "robots": ["Panda"],
            "camera_depths": False,
            "camera_heights": 84,
            "camera_widths": 84,
            "reward_shaping": False,
        },
    }


def check_version(env_args: dict[str, Any]) -> None:
    """Refuse what robosuite 1.4 would simulate otherwise than it was recorded.

    Raises:
        UserError: ``env_args`` are of robosuite 1.5.
    """
    version = str(env_args.get("env_version", "1.4.1"))
    if version.startswith("1.5"):
        raise UserError(
            f"env_args say robosuite {version}, whose observations and controllers differ from 1.4.1, the version that "
            "this project simulates. Use a low_dim_v141.hdf5 file."
        )


def resolve_env_args(env_args: dict[str, Any] | None, task: str | None) -> dict[str, Any]:
    """The data file's own ``env_args``, else the default of ``task`` with a warning.

    Raises:
        UserError: neither is given, or ``task`` is unknown.
    """
    if env_args is not None:
        return env_args
    if task is None:
        raise UserError(
            "the data file has no env_args (the attribute of its group 'data' that describes the environment), so the "
            f"simulator cannot be set up. Name the task: one of {', '.join(TASKS)}."
        )
    warnings.warn(f"the data file has no env_args: using Robomimic's v141 settings for task {task!r}", stacklevel=2)
    return default_env_args(task)


def task_of(env_args: dict[str, Any]) -> str | None:
    """The short name of the task that ``env_args`` describe; None for an environment outside ``TASKS``."""
    return next((name for name, task in TASKS.items() if task.env_name == env_args["env_name"]), None)
