"""From a stored name to a network class, without running a module that has no business here.

Importing a module runs it, and the name may come from a stranger's file. So a module that is not loaded yet is first
read as text: only one that itself defines the class and speaks of ``NoiseNetwork`` is imported.
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from common.errors import UserError
from policies.networks import NoiseNetwork


def network_class(class_path: str) -> type[NoiseNetwork]:
    """The ``NoiseNetwork`` subclass of that import path.

    Raises:
        UserError: there is none.
    """
    module_name, _, class_name = class_path.rpartition(".")
    if module_name not in sys.modules and not _defines_network(module_name, class_name):
        raise UserError(
            f"network class_path {class_path!r}: no module {module_name!r} on Python's path defines a class "
            f"{class_name!r} derived from policies.networks.NoiseNetwork"
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"network class_path {class_path!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, NoiseNetwork)):
        raise UserError(f"network class_path {class_path!r} is not a subclass of policies.networks.NoiseNetwork")
    return found


def _defines_network(module_name: str, class_name: str) -> bool:
    spec = _find(module_name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return False
    source = Path(spec.origin).read_text(encoding="utf-8", errors="replace")
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        return False
    defined = any(isinstance(statement, ast.ClassDef) and statement.name == class_name for statement in statements)
    return defined and NoiseNetwork.__name__ in source


def _find(module_name: str) -> ModuleSpec | None:
    """Like ``importlib.util.find_spec``, which however imports the parent packages."""
    parts = module_name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    spec: ModuleSpec | None = None
    path: Sequence[str] | None = None
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        found = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((each for each in found if each is not None), None)
        if spec is None or (count < len(parts) and spec.submodule_search_locations is None):
            return None
        path = spec.submodule_search_locations
    return spec
