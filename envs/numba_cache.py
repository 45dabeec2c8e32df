"""Where numba keeps compiled code: a folder that can be written, also on a machine where checkout and home cannot."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numba


def ensure_numba_cache() -> None:
    """Give numba a temporary cache where it would find no place for one and refuse; before robosuite is imported.

    numba caches beside the source, else in the user's cache folder, else raises: on import of robosuite already.
    """
    if numba.config.CACHE_DIR:  # type: ignore[attr-defined]
        return
    robosuite = find_spec("robosuite")
    sources = [Path(__file__).parent]
    if robosuite is not None and robosuite.origin is not None:
        sources.append(Path(robosuite.origin).parent)
    folder = numba_cache(sources, Path(os.environ.get("XDG_CACHE_HOME") or Path.home()))
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]


def numba_cache(sources: Sequence[Path], home: Path) -> Path | None:
    """The temporary cache to use, or None where numba can write beside all ``sources`` or below ``home``."""
    if _is_writable(home) or all(_is_writable(source) for source in sources):
        return None
    return _private_folder(Path(tempfile.gettempdir()))


def _is_writable(folder: Path) -> bool:
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False


def _private_folder(parent: Path) -> Path:
    """This user's own folder in ``parent``, the same from run to run: numba unpickles what lies in it."""
    folder = parent / f"diffusion-steering-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="diffusion-steering-"))  # somebody else's: not to be trusted
    return folder
