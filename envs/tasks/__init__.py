"""The tasks by name, one file each, and what a Robomimic header says about them. Light to import."""

import warnings
from typing import TYPE_CHECKING, Any, Literal

from common.errors import UserError
from envs.installed import header
from envs.tasks.can import CAN
from envs.tasks.lift import LIFT
from envs.tasks.square import SQUARE
from envs.tasks.task import Task
from envs.tasks.tool_hang import TOOL_HANG
from envs.tasks.transport import TRANSPORT

DEFAULT_OBS_KEYS = LIFT.obs_keys  # of one arm

TASKS: dict[str, Task] = {task.name: task for task in (LIFT, CAN, SQUARE, TOOL_HANG, TRANSPORT)}

# The type of a `--task` flag: the parser refuses and lists names by it.
if TYPE_CHECKING:
    TaskName = str
else:
    TaskName = Literal[tuple(TASKS)]


def find_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        UserError: there is none of that name.
    """
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}: expected one of {', '.join(TASKS)}.")
    return TASKS[name]


def default_env_args(task: str) -> dict[str, Any]:
    """What the header of Robomimic's low-dim file for the installed simulator says for ``task``."""
    record = find_task(task)
    return header().env_args(record.env_name, record.robots)


def object_pose_begin(task: Task) -> int:
    """Where in the installed simulator's ``object`` the object's own pose begins: position (3,), quaternion (4,)."""
    return 7 if task.object_in_hand == "pose" and header().OBJECT_LAYOUT.pose_in_hand_first else 0


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
    warnings.warn(
        f"the data file has no env_args: using the settings of {header().FILES} for task {task!r}", stacklevel=2
    )
    return default_env_args(task)


def task_of(env_args: dict[str, Any]) -> str | None:
    """The short name of the task that ``env_args`` describe; None for an environment outside ``TASKS``."""
    return next((name for name, task in TASKS.items() if task.env_name == env_args["env_name"]), None)
