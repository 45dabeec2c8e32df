"""One process at a time in the folder of a run."""

import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InUseError, UserError

LOCK_FILE = ".lock"
# Of file systems without locks, such as a Lustre mounted without `flock`.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Keep ``folder`` for this process; it is created where it is missing.

    The operating system holds the lock and releases it when the process ends, however it ends. The file it is held on
    stays behind and means nothing by itself. On a file system without locks a warning is all that happens.

    Raises:
        InUseError: another process holds the folder.
        UserError: it cannot be written.
    """
    path = Path(folder) / LOCK_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Choose another output folder.") from error
    with file:
        _acquire(file.fileno(), path)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _acquire(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = path.read_text(errors="replace")[:100]
        raise InUseError(
            f"{path.parent} is in use by another run ({holder or 'just begun'}): wait until it has ended, stop it, or "
            "name another output folder"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"{path.parent} cannot be locked ({error.strerror}): see to it that one run at a time writes there",
            stacklevel=4,
        )
