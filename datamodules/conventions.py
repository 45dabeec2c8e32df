"""What a data file's ``env_args`` say about its numbers: motions or poses, sparse or shaped rewards, like another's."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from common.controllers import are_absolute
from common.errors import UserError


def held_components(env_args: dict[str, Any] | None, action_dim: int) -> tuple[bool, ...]:
    """Which components of an action keep their value where nothing more is to happen; the others, motions, become 0.

    Of motions only the gripper's opening, the last component of each arm, is kept; a target pose is kept whole.
    """
    arm_dim = action_dim // _number_of_arms(env_args) or action_dim
    return tuple(are_absolute(env_args) or i % arm_dim == arm_dim - 1 for i in range(action_dim))


def are_shaped(env_args: dict[str, Any] | None, rewards: Iterable[np.ndarray]) -> bool:
    """Whether a file's rewards also pay for coming nearer, so that a reward above 0 does not mark success.

    They are where ``env_args`` say ``reward_shaping``, or where rewards above 0 differ: sparse ones have one value
    there. A file without rewards has none that are shaped.
    """
    arrays = [array for array in rewards if array.size]
    above = {value for array in arrays for value in np.unique(array[array > 0]).tolist()}
    return bool(arrays) and (len(above) > 1 or (env_args or {}).get("env_kwargs", {}).get("reward_shaping") is True)


def check_sparse(path: Path, env_args: dict[str, Any] | None, rewards: Iterable[np.ndarray]) -> None:
    """Refuse a file whose rewards (T,) are shaped: success cannot be told from them.

    Raises:
        UserError: they are.
    """
    if are_shaped(env_args, rewards):
        raise UserError(
            f"data set {path}: its rewards are shaped (they also pay for coming nearer: env_args say reward_shaping, "
            "or those above 0 differ), so that a reward above 0 does not mark success. Expected sparse rewards: "
            "`convert` makes them from the file's simulator states."
        )


def check_alike(path: Path, env_args: dict[str, Any] | None, other: object, other_env_args: dict[str, Any]) -> None:
    """Refuse a file whose task, simulator or controller is not that of ``other``, a file or a policy.

    A file without ``env_args`` is taken for the same, of actions that are motions.

    Raises:
        UserError: they differ, or there are none and the other's actions are poses.
    """
    if env_args is None:
        if are_absolute(other_env_args):
            raise UserError(
                f"{path} has no env_args, and the actions of {other} are target poses: if its own are too, give it "
                "that attribute of 'data' from a file of the same recording"
            )
        return
    expected = _compared(other_env_args)
    for what, found in _compared(env_args).items():
        if found != expected[what]:
            raise UserError(
                f"{path} has {what} {found}, {other} {expected[what]}: expected files of one task, simulator and "
                "controller"
            )


def _compared(env_args: dict[str, Any]) -> dict[str, str]:
    keys = ("env_name", "env_version", "controller_configs")
    controller = env_args.get("env_kwargs", {}).get("controller_configs")
    values = (env_args["env_name"], env_args.get("env_version"), controller)
    return {key: json.dumps(value, sort_keys=True) for key, value in zip(keys, values, strict=True)}


def _number_of_arms(env_args: dict[str, Any] | None) -> int:
    robots = (env_args or {}).get("env_kwargs", {}).get("robots")
    return len(robots) if isinstance(robots, list) and robots else 1
