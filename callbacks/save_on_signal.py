"""SIGTERM, SLURM's preemption and Ctrl-C: save, then exit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from callbacks.checkpoints import LastCheckpoint
from callbacks.lookup import find

# Ranks must agree before they save together; asking costs a message, and a GPU its head start, so not at every step.
STEPS_BETWEEN_AGREEMENTS = 50
# A signal to a whole process group reaches a rank twice, as rank 0 or torchrun passes it on: one request, not two.
SECONDS_OF_ONE_REQUEST = 2.0
_ANNOUNCEMENT = (
    "\n{}: will save and stop at the end of this step, or of the validation and rollouts under way. "
    "Ctrl-C now stops at once and loses what came after the last checkpoint.\n"
)


class SaveOnSignal(Checkpoint):
    """Writes ``last.ckpt`` at the next optimiser step's end and exits with 128 + the signal's number.

    It replaces Lightning's handlers, which save in the middle of a step, or not at all, and which communicate between
    ranks from inside the handler. After an epoch's last step it saves too, but exits once validation, rollout and the
    choice of checkpoints are done, for a run that goes on there would not make up for them. Under SLURM, the requeue
    signal (SIGUSR1 unless configured) also requeues the job. A second signal interrupts at once.

    A ``Checkpoint``, because Lightning calls those after all other callbacks, and listed last of them.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._trainer: Trainer | None = None
        self._since = 0.0
        self._step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning's handler, in place until now, may have seen one already.
        self._trainer, self._received = trainer, signal.SIGTERM if trainer.received_sigterm else None
        self._step = trainer.global_step
        # Lightning puts the former handlers back when the run ends.
        for signum in (signal.SIGTERM, signal.SIGINT, *_requeue_signals(trainer)):
            signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._received is not None:
            if signum == signal.SIGINT or time.monotonic() - self._since > SECONDS_OF_ONE_REQUEST:
                raise KeyboardInterrupt
            return
        self._received, self._since = signum, time.monotonic()
        # Not print(): the signal may have come in the middle of one.
        os.write(sys.stderr.fileno(), _ANNOUNCEMENT.format(signal.Signals(signum).name).encode())
        launcher = self._trainer.strategy.launcher if self._trainer is not None else None
        if launcher is not None and signum != signal.SIGINT:  # the terminal sends Ctrl-C to every process itself
            launcher.kill(signum)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated: a checkpoint would not hold them
        self._step = trainer.global_step
        if trainer.world_size > 1 and trainer.global_step % STEPS_BETWEEN_AGREEMENTS:
            return
        if self._is_to_stop(trainer):
            self._save(trainer)
            if not trainer.is_last_batch:
                self._exit(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_to_stop(trainer) and not trainer.fit_loop.done:
            self._save(trainer)
            self._exit(trainer)

    def _is_to_stop(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(_last(trainer), weights_only=False)

    def _exit(self, trainer: Trainer) -> NoReturn:
        received = self._received or signal.SIGTERM  # another rank's signal, not yet ours
        if trainer.is_global_zero:
            name = signal.Signals(received).name
            print(
                f"{name}: saved step {trainer.global_step} in {_last(trainer)}; --resume goes on",
                file=sys.stderr,
            )
            if received in _requeue_signals(trainer):
                subprocess.run(["scontrol", "requeue", _slurm_job()], check=True)
        raise SystemExit(128 + received)


def _last(trainer: Trainer) -> Path:
    last = find(trainer, LastCheckpoint)
    assert last is not None
    return last.path


def _requeue_signals(trainer: Trainer) -> list[int]:
    # Private to Lightning 2.6 (setup.cfg bounds it): a run on one device has its cluster nowhere else.
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return []
    return [environment.requeue_signal or signal.SIGUSR1]


def _slurm_job() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
