"""A callback for tests that interrupt a run: the run waits for them."""

import time
from pathlib import Path

import lightning.pytorch as pl


class SlowEpochs(pl.Callback):
    """While ``file`` exists an epoch takes ``seconds`` more, in which a signal is still heard between two steps."""

    def __init__(self, file: str, seconds: float = 0.3) -> None:
        self._file, self._seconds = Path(file), seconds

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._file.exists():
            time.sleep(self._seconds)
