"""What baselines came to, kept beside the base policy: neither a resumed run nor a second one plays them again."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.kept import kept
from envs.pool import EnvPool
from policies.storage import fingerprint
from rollouts.decoder import FrozenDecoder

# Raised by hand where this project's own decoding or stepping comes to play a policy otherwise: what was kept before is
# played again.
PLAYS_AS = 2
SIMULATOR = ("mujoco", "robosuite")  # of another version, an episode can end otherwise


class PlayedResults:
    """A folder of small JSON files, one per result, each named by all that decides it.

    Args:
        folder: made when it is needed; None: nothing is kept.
        decoder: the frozen policy.
        pool: its environments.
    """

    def __init__(self, folder: Path | None, decoder: FrozenDecoder, pool: EnvPool) -> None:
        self.folder = folder
        spec = decoder.policy.spec
        self.base = {
            "base": fingerprint(decoder.policy),
            "diffusion": asdict(spec.diffusion),
            "ddim_steps": decoder.ddim_steps,
            "env": asdict(pool.spec),
            "plays_as": PLAYS_AS,
            "versions": {package: version(package) for package in SIMULATOR},
        }

    def get(self, what: dict[str, Any], play: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """The result of ``what``: the one kept, or what ``play`` gives, which is then kept.

        Args:
            what: JSON values that say what is played, beside the policy and its environments.
            play: gives JSON values.

        Returns:
            The result, and whether it had been kept.
        """
        if self.folder is None:
            return play(), False
        decides = {**self.base, **what}

        def write(path: Path, result: dict[str, Any]) -> None:
            entry = {"what": decides, "result": result, "sha256": _digest(result)}
            path.write_text(json.dumps(entry, indent=1) + "\n")

        path = self.folder / f"{_digest(decides)[:20]}.json"
        return kept(path, "a baseline's result", play, _read, write)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """The result in a file. Raises ValueError if it is not as it was written."""
    entry = json.loads(path.read_text())
    if entry["sha256"] != _digest(entry["result"]):
        raise ValueError("changed since it was written")
    return entry["result"]
