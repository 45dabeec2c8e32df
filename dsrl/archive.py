"""The run's archives: normal SB3 zip files that carry plain JSON beside SB3's own members.

``steering.json`` says what the actor was trained on, so that the archive can be loaded without unpickling anything.
``sac_last.zip`` also carries the run's whole state, in the same file, so that a state is there whole or not at all.
SB3's own ``SAC.load`` reads both and ignores the extra members.
"""

import dataclasses
import hashlib
import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from stable_baselines3.common.save_util import load_from_zip_file

from common.errors import UserError
from common.files import atomic_path
from dsrl.config import DemonstrationsConfig, DSRLConfig, EnvConfig, EvalConfig, LearnerConfig, WarmStartConfig
from dsrl.learner import SteeringSAC
from dsrl.networks import SteeringPolicy

FORMAT_VERSION = 1
STEERING = "steering.json"
RUN_STATE = "run_state.json"
BUFFER = "replay_buffer.npz"
# Not ".pth": SB3 takes every member of that name for its own.
TENSORS = "run_state.tensors"

T = TypeVar("T")


@dataclass
class Steering:
    """``steering.json``: what an actor was trained with and on."""

    config: DSRLConfig
    base_fingerprint: str
    base_task: str | None
    obs_dims: dict[str, int]
    env_steps: int
    deterministic_is_better: bool

    def load_networks(self, networks: SteeringPolicy, path: str | Path) -> None:
        """Fill ``networks`` with the archive's weights."""
        try:
            networks.load_state_dict(read_parameters(path)["policy"])
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: the weights do not fit its own {STEERING}. {error}") from error


def fingerprint(policy: torch.nn.Module) -> str:
    """SHA-256 of the weights, the same for an exported policy and the Lightning checkpoint it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_archive(
    path: str | Path, learner: SteeringSAC, steering: Steering, members: dict[str, bytes] | None = None
) -> None:
    """Write an SB3 archive with ``steering.json`` and further members, atomically."""
    with atomic_path(path) as partial:
        with partial.open("wb") as file:
            learner.save(file)
        with zipfile.ZipFile(partial, "a") as archive:
            values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(steering)}
            archive.writestr(STEERING, json.dumps(values, indent=1))
            for name, content in (members or {}).items():
                archive.writestr(name, content)


def read_steering(path: str | Path) -> Steering:
    """The description inside an archive.

    Raises:
        UserError: missing file, not a zip, not written by this project, or damaged.
    """
    values = _json(read_member(path, STEERING), path)
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has steering format {version!r}; this version reads {FORMAT_VERSION}. Train again.")
    try:
        return Steering(**{**values, "config": config_from_dict(values["config"])})
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} holds a damaged {STEERING}: {error}") from error


def config_from_dict(values: dict[str, Any]) -> DSRLConfig:
    """Inverse of ``dataclasses.asdict``."""
    groups: dict[str, Any] = {
        "learner": LearnerConfig,
        "env": EnvConfig,
        "warm_start": WarmStartConfig,
        "demonstrations": DemonstrationsConfig,
        "evaluation": EvalConfig,
    }
    return DSRLConfig(**{key: groups[key](**value) if key in groups else value for key, value in values.items()})


def check_fits(steering: Steering, policy: Any, path: str | Path) -> None:
    """Refuse an actor that was trained on another policy than ``policy``."""
    spec = policy.spec
    if steering.base_task != spec.task:
        raise UserError(f"{path} steers a policy of task {steering.base_task!r}, the checkpoint is of {spec.task!r}.")
    if steering.obs_dims != dict(spec.obs_dims):
        raise UserError(f"{path} was trained on observations {steering.obs_dims}, the checkpoint has {spec.obs_dims}.")
    if steering.base_fingerprint != fingerprint(policy):
        raise UserError(
            f"{path} steers another policy: the noise it chooses means nothing to this checkpoint. "
            "Pass the checkpoint that was given to `dsrl --bc_checkpoint`."
        )


def read_parameters(path: str | Path) -> dict[str, Any]:
    """SB3's state dicts by name, and ``variables``: loaded with ``weights_only``, without the pickled ``data``."""
    try:
        _, parameters, variables = load_from_zip_file(str(path), load_data=False, device="cpu")
    except (ValueError, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise UserError(f"{path} is refused: damaged, or holding more than weights. {_first_line(error)}") from error
    return {**parameters, "variables": variables or {}}


def read_member(path: str | Path, name: str) -> bytes:
    """One member's bytes.

    Raises:
        UserError: missing file, not a zip, or no such member.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist: pass the sac_best.zip that `dsrl` wrote.")
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except KeyError as error:
        raise UserError(f"{path} has no {name}: it was not written by `dsrl` of this project.") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is not a readable zip archive: {error}") from error


def pack_tensors(tensors: dict[str, Any]) -> bytes:
    """Tensors and plain values, as bytes that ``unpack_tensors`` reads with the safe unpickler."""
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def unpack_tensors(content: bytes, path: str | Path) -> dict[str, Any]:
    """Inverse of ``pack_tensors``."""
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} holds a damaged {TENSORS}: {_first_line(error)}") from error


def pack_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """Numeric arrays as the bytes of an ``npz``."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def unpack_arrays(content: bytes) -> Any:
    """Inverse of ``pack_arrays``; nothing is unpickled."""
    return np.load(io.BytesIO(content), allow_pickle=False)


def _json(content: bytes, path: str | Path) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} holds a damaged {STEERING}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a damaged {STEERING}: found a {type(values).__name__}")
    return values


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
