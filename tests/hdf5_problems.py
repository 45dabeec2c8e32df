"""What `inspect` says is wrong with a file."""

from pathlib import Path

from common.errors import UserError
from datamodules.inspection import survey


def problems(path: str | Path) -> list[str]:
    """Every problem of a file; one where it cannot be opened as a data set at all."""
    try:
        return survey(Path(path)).problems
    except UserError as error:
        return [str(error)]
