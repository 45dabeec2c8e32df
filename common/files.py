"""Files that appear whole or not at all."""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to; rename it into place on success, remove it on any exception.

    Missing parent folders are created. The file is flushed to disk before the rename, so that after a power cut the
    old file or the new one is there.

    Raises:
        UserError: the folder cannot be created or written, or the disk is full.
    """
    target = Path(target)
    partial = _touch_beside(target)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        raise UserError(f"cannot write {target}: {os.strerror(error.errno)}. An earlier file is intact.") from error
    finally:
        partial.unlink(missing_ok=True)


def check_writable(target: str | Path) -> None:
    """Find out before long work whether ``atomic_path`` will be able to write; leaves nothing behind but the folder.

    Raises:
        UserError: it will not.
    """
    _touch_beside(Path(target)).unlink()


def check_new(output: Path, overwrite: bool, source: Path | None = None) -> None:
    """Refuse to replace a file unasked, or ever the one that the output is made of.

    Raises:
        UserError: ``output`` is ``source``, or is there and not to be overwritten.
    """
    if source is not None and source.resolve() == output.resolve():
        raise UserError(f"--output is {source}, which it is to be made of: choose another file.")
    try:
        there = output.is_file()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise UserError(f"cannot write {output}: {error.strerror}. Choose another output path.") from error
    if there and not overwrite:
        raise UserError(
            f"{output} is there already: name another --output, move it away, or replace it by --overwrite."
        )


def _touch_beside(target: Path) -> Path:
    try:
        if target.is_dir() or not target.name:
            raise UserError(
                f"cannot write {target}: it is a folder. Name a file, such as {target / 'out'}{target.suffix}."
            )
        # Apart from those of other processes, on other machines too.
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.partial")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}. Choose another output path.") from error
    return partial


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
