"""SIGTERM, SLURM's preemption and Ctrl-C: save, then exit."""

import os
import signal
import subprocess
import sys
from types import FrameType

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.checkpoints import LastCheckpoint

# Ranks must agree before they save together; asking costs a message, so not at every step.
STEPS_BETWEEN_AGREEMENTS = 10


class SaveOnSignal(Callback):
    """Writes ``last.ckpt`` at the next step's end and exits with 128 + the signal's number.

    It replaces Lightning's handlers, which save in the middle of a step, or not at all, and which communicate between
    ranks from inside the handler. Under SLURM, the requeue signal (SIGUSR1 unless configured) also requeues the job.
    A second signal interrupts at once. Listed after the moving average, so that it saves what that step made of it.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._trainer: Trainer | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning's handler, in place until now, may have seen one already.
        self._trainer, self._received = trainer, signal.SIGTERM if trainer.received_sigterm else None
        # Lightning puts the former handlers back when the run ends.
        for signum in (signal.SIGTERM, signal.SIGINT, *_requeue_signals(trainer)):
            signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = signum
        launcher = self._trainer.strategy.launcher if self._trainer is not None else None
        if launcher is not None and signum != signal.SIGINT:  # the terminal sends Ctrl-C to every process itself
            launcher.kill(signum)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        stop = self._received is not None
        if trainer.world_size > 1:
            if trainer.global_step % STEPS_BETWEEN_AGREEMENTS:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self._save_and_exit(trainer)

    def _save_and_exit(self, trainer: Trainer) -> None:
        last = next(callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint))
        trainer.save_checkpoint(last.path, weights_only=False)
        received = self._received or signal.SIGTERM  # another rank's signal, not yet ours
        if trainer.is_global_zero:
            name = signal.Signals(received).name
            print(f"{name}: saved step {trainer.global_step} in {last.path}; --ckpt_path last goes on", file=sys.stderr)
            if received in _requeue_signals(trainer):
                subprocess.run(["scontrol", "requeue", _slurm_job()], check=True)
        raise SystemExit(128 + received)


def _requeue_signals(trainer: Trainer) -> list[int]:
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return []
    return [environment.requeue_signal or signal.SIGUSR1]


def _slurm_job() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
