"""From a stored name to a network class, without running anything that has no business here.

Importing a module runs it, and the name may come from a stranger's file. So a name is only looked up, among the modules
that somebody's own code, configuration or flag has imported, or imported from this package.
"""

import importlib
import sys
from types import ModuleType

from common.errors import UserError
from policies.networks import NoiseNetwork

OWN_PACKAGE = __name__.partition(".")[0]


def network_class(class_path: str) -> type[NoiseNetwork]:
    """The ``NoiseNetwork`` subclass of that import path.

    Raises:
        UserError: there is none, or its module is neither this project's nor imported.
    """
    module_name, _, class_name = class_path.rpartition(".")
    if is_own(class_path):
        _import_own(module_name)
    module = sys.modules.get(module_name)
    if not isinstance(module, ModuleType):
        raise UserError(
            f"network class_path {class_path!r} stands in a file, and a file may not choose what is imported, because "
            f"importing runs a module. If you know {module_name!r}, give --network_module {module_name}; in Python, "
            "import it first"
        )
    found = vars(module).get(class_name)  # not getattr, for which a module may run code
    if not (isinstance(found, type) and issubclass(found, NoiseNetwork)):
        raise UserError(f"network class_path {class_path!r} is not a subclass of policies.networks.NoiseNetwork")
    return found


def class_path_of(network: object) -> str:
    """The import path under which ``network_class`` finds a class again.

    Raises:
        UserError: it is no ``NoiseNetwork`` subclass, or cannot be found again.
    """
    if not (isinstance(network, type) and issubclass(network, NoiseNetwork)):
        raise UserError(f"the network is {network!r}: expected a subclass of policies.networks.NoiseNetwork")
    class_path = f"{network.__module__}.{network.__qualname__}"
    if network.__module__ == "__main__":
        raise UserError(
            f"network {class_path} is defined in the script that runs, where no other program can find it again: move "
            "it to a module of its own"
        )
    module = sys.modules.get(network.__module__)
    if module is None or vars(module).get(network.__qualname__) is not network:
        raise UserError(
            f"network {class_path} cannot be found again under that name: define it at the top level of its module, "
            "not within a class or a function"
        )
    return class_path


def is_own(class_path: str) -> bool:
    """Whether the name lies in this package, which may be imported whoever names it."""
    return class_path.startswith(f"{OWN_PACKAGE}.")


def _import_own(module_name: str) -> None:
    try:
        importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(f"network class_path: there is no module {module_name!r} in this project") from error
