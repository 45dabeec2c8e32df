"""What was computed before, kept in a file, so that another run need not compute it again."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from common.errors import UserError
from common.files import atomic_path

Value = TypeVar("Value")
# What a reader of JSON or of numpy's archives raises where a file is not as it was written.
DAMAGED = (ValueError, LookupError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


def kept(
    path: Path,
    name: str,
    compute: Callable[[], Value],
    read: Callable[[Path], Value],
    write: Callable[[Path, Value], None],
) -> tuple[Value, bool]:
    """The value in a file, or else the computed one, which the file then holds.

    A file that cannot be read or written costs a line and the computing, never the run.

    Args:
        path: names all that decides the value; missing folders are made.
        name: of the value, in messages: "the noise".
        compute: gives the value.
        read: gives it from the file; raises an OSError, or one of ``DAMAGED`` where the file is not as written.
        write: writes it to a path.

    Returns:
        The value, and whether the file held it.
    """
    try:
        return read(path), True
    except FileNotFoundError:
        pass
    except OSError as error:
        print(f"{path} cannot be read, so {name} is computed again: {error.strerror}", flush=True)
    except DAMAGED:
        print(f"{path} is damaged: {name} is computed again", flush=True)
    value = compute()
    try:
        with atomic_path(path) as partial:
            write(partial, value)
    except (UserError, OSError) as error:
        print(f"{name} is not kept for later runs: {error}", flush=True)
    return value, False
