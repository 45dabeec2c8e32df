"""Modules of the user's own, imported because somebody named them: importing runs a module, so no file may."""

import importlib

from common.errors import UserError


def import_named(module: str, by: str) -> None:
    """Import ``module``, which the user named by the flag or variable ``by``.

    Raises:
        UserError: that is no name of a module, or none that can be found.
    """
    if not module.replace(".", "_").isidentifier() or module.startswith("."):
        raise UserError(f"{by} is {module!r}: expected a name as in an import, such as my_module")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # one that the user's module imports
        raise UserError(
            f"{by} {module}: no module {error.name!r} on Python's path. Give the name as in an import, and its folder "
            "in PYTHONPATH"
        ) from error
