"""Lightning checkpoints that are whole or absent on disk, and that run no code when read."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from common.errors import UserError
from common.files import atomic_path
from policies.spec import PolicySpec
from policies.storage import SPEC_KEY, read_lightning_checkpoint

# What Lightning needs to resume, and of which kind.
REQUIRED: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames; reads with PyTorch's safe unpickler, whatever ``weights_only`` asks for.

    Lightning's own way writes into the system's temporary folder and moves from there, which is a plain copy where that
    folder is another file system: a kill in the middle would leave half a checkpoint in place of the last good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic_path(path) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """The checkpoint's content.

        Raises:
            UserError: it is missing, damaged, of another format version, no checkpoint of ``fit``, or would execute
                code.
        """
        if not Path(path).is_file():
            raise UserError(f"checkpoint {path} does not exist: pass a .ckpt of `fit`, or `last`")
        checkpoint = read_lightning_checkpoint(Path(path))
        PolicySpec.from_dict(checkpoint.get(SPEC_KEY), f"checkpoint {path}")
        for key, kind in REQUIRED.items():
            if not isinstance(checkpoint.get(key), kind):
                raise UserError(
                    f"checkpoint {path} cannot be resumed from: its {key!r} is {type(checkpoint.get(key)).__name__}, "
                    f"expected {kind.__name__}. Pass a .ckpt of `fit`."
                )
        return checkpoint
