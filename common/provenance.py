"""Where figures come from: the command line, the code, the packages and the machine behind a run."""

import json
import os
import platform
import shlex
import subprocess
import sys
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.files import atomic_path

FILE = "provenance.json"
PACKAGES = ("torch", "lightning", "stable-baselines3", "numpy", "mujoco", "robosuite")
_ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, Any]:
    """Command line, time of its start (UTC), commit, versions and hardware of this process, as plain JSON values.

    ``commit`` is None outside a git repository, and ends with ``+changes`` where tracked files differ from it.
    """
    name = Path(sys.argv[0]).name
    words = ["python", name] if name.endswith(".py") else [name]
    return {
        "command": shlex.join([*words, *sys.argv[1:]]),
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "hardware": _hardware(),
    }


def write_provenance(folder: Path, changed: Mapping[str, Any], goes_on: bool) -> None:
    """Write ``provenance.json`` into the folder of a run.

    Args:
        folder: of the run.
        changed: settings that differ from their defaults, by their flags' names.
        goes_on: whether an earlier run there is resumed: its starts are kept, and this one is added to them.
    """
    path = folder / FILE
    known = read_provenance(path) if goes_on and path.is_file() else {"starts": []}
    if known is None:
        warnings.warn(f"{path} cannot be read: it is begun anew, without the run's earlier starts", stacklevel=2)
    earlier = [] if known is None else known["starts"]
    document = {"starts": [*earlier, provenance()], "changed": dict(changed)}
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(document, indent=1) + "\n")


def read_provenance(path: Path) -> dict[str, Any] | None:
    """What ``write_provenance`` wrote into a file: ``starts``, a list of dicts, and ``changed``; None if damaged."""
    try:
        document = json.loads(path.read_text())
        starts, changed = document["starts"], document["changed"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    whole = isinstance(starts, list) and all(isinstance(start, dict) for start in starts) and isinstance(changed, dict)
    return document if whole else None


def changed_settings(given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the nested ``given`` that ``default`` does not hold with the same value, by dotted names."""
    before = flat(default)
    return {name: value for name, value in flat(given).items() if name not in before or before[name] != value}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names: ``{"env": {"n_envs": 2}}`` as ``{"env.n_envs": 2}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def _commit() -> str | None:
    if not (_ROOT / ".git").exists():  # installed elsewhere: a repository around it would not be this one
        return None
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or a repository of another user
        return None
    return done.stdout.strip()


def _hardware() -> dict[str, Any]:
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cpus": cpus,
        "memory_gb": round(memory / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
