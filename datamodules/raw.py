"""Raw recordings: simulator states and actions, before any observation is made of them."""

import json
from typing import Any

from common.errors import UserError
from datamodules.demonstrations import Demonstration
from datamodules.hdf5 import DatasetFile


def read_raw(file: DatasetFile, name: str) -> Demonstration:
    """A recording's states, actions and model file.

    Raises:
        UserError: it has no states, or anything is wrong with them or its actions.
    """
    demonstration = file.read(name, (), ("states",))
    if len(demonstration.states) == 0:
        raise UserError(f"{file.path}: {name} has no states. Expected a recording with simulator states.")
    return demonstration


def recorded_env_args(file: DatasetFile) -> dict[str, Any] | None:
    """How the recording's environment is built: Robomimic's ``env_args``, or what robosuite's own recorder writes.

    Of the latter ``env_kwargs`` hold only what it states (robots, controller); None where the file has neither.

    Raises:
        UserError: ``env_info`` is malformed.
    """
    if file.env_args is not None or "env" not in file.attributes:
        return file.env_args
    try:
        stated = json.loads(file.attributes.get("env_info", "{}"))
    except ValueError as error:
        raise UserError(f"{file.path}: attribute 'env_info' is not JSON ({error}).") from error
    if not isinstance(stated, dict):
        raise UserError(f"{file.path}: attribute 'env_info' is not an object.")
    version = file.attributes.get("repository_version", "1.4.1")
    return {"env_name": file.attributes["env"], "env_version": version, "type": 1, "env_kwargs": stated}
