"""Damaged hdf5 structures, at which h5py raises almost any type of exception, as one clear error."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from traceback import extract_tb
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from common.errors import UserError


class _HasPath(Protocol):
    path: Path


Reader = TypeVar("Reader", bound=_HasPath)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def reports_damage(
    method: Callable[Concatenate[Reader, Arguments], Result],
) -> Callable[Concatenate[Reader, Arguments], Result]:
    """Let a reader's method raise `UserError` for exceptions from inside h5py; those of our own code pass through."""

    @wraps(method)
    def reporting(self: Reader, *args: Any, **kwargs: Any) -> Result:
        try:
            return method(self, *args, **kwargs)
        except UserError:
            raise
        except Exception as error:
            if "h5py" in Path(extract_tb(error.__traceback__)[-1].filename).parts:
                raise UserError(f"{self.path} is damaged ({error}). Fetch or make it again.") from error
            raise

    return reporting
