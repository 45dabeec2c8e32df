"""Which robosuite is installed, and so which folder of `envs` simulates. Light: robosuite itself is not imported."""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from common.errors import UserError
from envs.header import Header

# How a version of robosuite begins -> the folder with all that is peculiar to it.
FOLDERS = {"1.4.": "robosuite141", "1.5.": "robosuite15"}


@cache
def installed_folder() -> str:
    """The folder that belongs to the installed robosuite.

    Raises:
        UserError: it is not installed, or none of the versions that there are folders for.
    """
    try:
        found = version("robosuite")
    except PackageNotFoundError:
        raise UserError("robosuite, the simulator, is not installed: expected 1.4.1 or 1.5.2 ('make setup').") from None
    for beginning, folder in FOLDERS.items():
        if found.startswith(beginning):
            return folder
    raise UserError(f"robosuite {found} is installed: expected 1.4.1 ('make setup') or 1.5.2.")


def header(folder: str | None = None) -> Header:
    """The ``header`` of a folder of ``FOLDERS``; None: of the installed version's."""
    return cast(Header, import_module(f"envs.{folder or installed_folder()}.header"))


def check_version(env_args: dict[str, Any]) -> None:
    """Refuse what the installed robosuite would simulate otherwise than it was recorded.

    Raises:
        UserError: ``env_args`` are of another version than the one that is installed.
    """
    ours = header()
    if "env_version" not in env_args or ours.records(str(env_args["env_version"])):
        return
    stated = env_args["env_version"]
    theirs = next((each for each in map(header, FOLDERS.values()) if each.records(str(stated))), None)
    if theirs is None:
        raise UserError(f"env_args say robosuite {stated}: there is no simulator for it here. Use {ours.FILES}.")
    raise UserError(
        f"env_args say robosuite {stated}, whose observations and controllers differ from those of {ours.SIMULATES}, "
        f"which is installed here. Run '{theirs.SETUP}', then the same command with {theirs.PYTHON}; or use "
        f"{ours.FILES}."
    )
