"""What a data file's ``env_args`` say about its numbers: motions or poses, sparse or shaped rewards."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from common.controllers import are_absolute


def held_components(env_args: dict[str, Any] | None, action_dim: int) -> tuple[bool, ...]:
    """Which components of an action keep their value where nothing more is to happen; the others, motions, become 0.

    Of motions only the gripper's opening, the last component of each arm, is kept; a target pose is kept whole.
    """
    arm_dim = action_dim // _number_of_arms(env_args) or action_dim
    return tuple(are_absolute(env_args) or i % arm_dim == arm_dim - 1 for i in range(action_dim))


def are_shaped(env_args: dict[str, Any] | None, rewards: Iterable[np.ndarray]) -> bool:
    """Whether a file's rewards also pay for coming nearer, so that a reward above 0 does not mark success.

    ``reward_shaping`` says so; where it is silent, sparse rewards are told by having one value above 0.
    """
    if (env_args or {}).get("env_kwargs", {}).get("reward_shaping") is True:
        return True
    return len({value for array in rewards for value in np.unique(array[array > 0]).tolist()}) > 1


def _number_of_arms(env_args: dict[str, Any] | None) -> int:
    robots = (env_args or {}).get("env_kwargs", {}).get("robots")
    return len(robots) if isinstance(robots, list) and robots else 1
