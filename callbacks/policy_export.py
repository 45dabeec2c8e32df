"""Leaves a policy file behind at the end of training."""

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.checkpoints import BestCheckpoint
from callbacks.lookup import find
from lightning_modules import DiffusionBC
from policies import load_policy
from policies.storage import POLICY_FILE

log = logging.getLogger(__name__)


class PolicyExport(Callback):
    """Writes ``policy.safetensors`` beside the checkpoints when ``fit`` ends.

    It holds the best checkpoint by success rate, of equals the latest, or the final weights where nothing was rolled
    out.

    Args:
        dirpath: folder of the checkpoints (linked from ``best``).
    """

    def __init__(self, dirpath: str) -> None:
        self.path = Path(dirpath) / POLICY_FILE

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DiffusionBC)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        checkpoints = find(trainer, BestCheckpoint)
        best = None if checkpoints is None else checkpoints.latest_best_path
        policy = load_policy(best) if best else pl_module.inference_policy
        policy.save(self.path)
        log.info("Exported %s to %s", best or "the final weights", self.path)
