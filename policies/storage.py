"""Policies on disk: one definition of how a checkpoint is read. Nothing here is unpickled."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.errors import UserError
from common.files import atomic_path
from policies.spec import PolicySpec

# In the folder of a run of `fit`: the exported policy, and the checkpoints with the best success rates.
POLICY_FILE = "policy.safetensors"
BEST_FILES = "epoch*-success*.ckpt"
METADATA_KEY = "policy"
# Where a Lightning checkpoint of this project holds the policy's spec, and how often the average was updated.
SPEC_KEY = "policy_spec"
EMA_COUNT = "ema_updates"


def write_policy(path: str | Path, spec: PolicySpec, tensors: dict[str, Tensor]) -> None:
    """Write weights as one safetensors file with their spec as JSON metadata."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as partial:
        partial.write_bytes(save(stored, metadata={METADATA_KEY: json.dumps(spec.to_dict())}))


def fingerprint(policy: torch.nn.Module) -> str:
    """SHA-256 of the weights, the same for an exported policy and the Lightning checkpoint it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_policy(path: Path) -> tuple[PolicySpec, dict[str, Tensor]]:
    """Read an exported policy (``.safetensors``) or a Lightning checkpoint (``.ckpt``: EMA weights where it has any).

    Raises:
        UserError: the file is missing, is neither kind, is damaged, or would execute code.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"checkpoint {path} {what}: pass a .ckpt or a policy.safetensors of `fit`")
    return _read_lightning(path) if path.suffix == ".ckpt" else _read_safetensors(path)


def _read_safetensors(path: Path) -> tuple[PolicySpec, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        values = json.loads(metadata.get(METADATA_KEY, "null"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"checkpoint {path} is not a policy file: {error}") from error
    return PolicySpec.from_dict(values, str(path)), tensors


def _read_lightning(path: Path) -> tuple[PolicySpec, dict[str, Tensor]]:
    checkpoint = read_lightning_checkpoint(path)
    spec = PolicySpec.from_dict(checkpoint.get(SPEC_KEY), str(path))
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict):
        raise UserError(f"checkpoint {path} holds no state_dict: it is no checkpoint of `fit`")
    ema_updates = state.get(EMA_COUNT)
    averaged = isinstance(ema_updates, Tensor) and ema_updates.numel() == 1 and int(ema_updates) > 0
    prefix = "ema_policy." if averaged else "policy."
    spec.weights = "ema" if averaged else "raw"
    step = checkpoint.get("global_step")
    spec.train_step = step if isinstance(step, int) else 0
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    return spec, {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}


def read_lightning_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, read with PyTorch's safe unpickler.

    Raises:
        UserError: unreadable, truncated, or holding anything but tensors and plain values.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"checkpoint {path} is refused: it is damaged, or holds objects that could execute code. {reason}"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        # What torch.load raises on truncated or scrambled bytes.
        raise UserError(f"checkpoint {path} cannot be read: {(str(error) or repr(error)).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"checkpoint {path} is no Lightning checkpoint: found a {type(checkpoint).__name__}")
    return checkpoint
