"""Leaves a policy file behind at the end of training."""

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.checkpoints import BestCheckpoint
from lightning_modules import DiffusionBC
from policies import load_policy

log = logging.getLogger(__name__)


class PolicyExport(Callback):
    """Writes ``policy.safetensors`` beside the checkpoints when ``fit`` ends.

    It holds the best checkpoint by success rate, of equals the latest, or the final weights where nothing was rolled
    out.

    Args:
        filename: name of the file.
    """

    def __init__(self, filename: str = "policy.safetensors") -> None:
        self.filename = filename

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DiffusionBC)
        checkpoints = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        if not trainer.is_global_zero or not checkpoints or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        best = next((c.latest_best_path for c in checkpoints if isinstance(c, BestCheckpoint)), None)
        target = Path(checkpoints[0].dirpath or trainer.default_root_dir) / self.filename
        if best:
            policy = load_policy(best)
        else:
            policy = pl_module.inference_policy
            policy.spec.weights = "ema" if policy is pl_module.ema_policy else "raw"
            policy.spec.train_step = trainer.global_step
        policy.save(target)
        log.info("Exported %s to %s", best or "the final weights", target)
