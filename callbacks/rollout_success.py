"""Success rate of the policy in the simulator, during training."""

import dataclasses
import itertools
import os
import socket
import time
import warnings

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torchmetrics import MeanMetric

from callbacks.lookup import find
from callbacks.progress import RunProgress
from callbacks.run_end import is_last_epoch
from common.errors import UserError
from datamodules.robomimic_datamodule import RobomimicDataModule
from envs.pool import Capture, EnvPool, EnvSpec, available_cpus
from lightning_modules import DiffusionBC
from rollouts.agents import DiffusionAgent
from rollouts.loop import EpisodeResult, run_episodes
from rollouts.simulation import check_fits, simulation_of

METRIC = "rollout/success_rate"
# Initial states of selection: away from the seeds that users pass to `evaluate`, so that no checkpoint is reported on
# the states it was chosen by.
SELECTION_SEED = 1_000_003
TEST_SEED = 2_000_003  # of `test`, for the same reason


class RolloutSuccess(Callback):
    """Rolls the inference policy (EMA weights) out in parallel environments and logs how it does.

    Logs ``rollout/success_rate``, ``rollout/episode_length`` (env steps) and ``rollout/return``. Under several ranks
    the episodes are sharded and reduced exactly. Workers stay warm between rollouts. Runs every ``every_n_epochs`` and
    at the last epoch's end in ``fit``, once in ``validate`` and ``test``, never in the sanity check.

    Args:
        every_n_epochs: training epochs between rollouts; 0: none during ``fit``.
        n_episodes: episodes per rollout, each time from the same initial states.
        n_envs: parallel environments of this rank; null: as many as suit its share of the CPUs.
        horizon: env steps before an episode counts as failed; null: the task's own.
        film_strip: frames of the first episode shown side by side in TensorBoard after each rollout; 0: none. Left out
            with a warning where nothing can render.
    """

    def __init__(
        self,
        every_n_epochs: int = 50,
        n_episodes: int = 50,
        n_envs: int | None = None,
        horizon: int | None = None,
        film_strip: int = 0,
    ) -> None:
        for name, value, least in (
            ("every_n_epochs", every_n_epochs, 0),
            ("n_episodes", n_episodes, 1),
            ("n_envs", n_envs, 1),
            ("film_strip", film_strip, 0),
        ):
            if value is not None and value < least:
                raise UserError(f"rollout.{name} is {value}: expected at least {least}")
        self.every_n_epochs = every_n_epochs
        self.n_episodes = n_episodes
        self.n_envs = n_envs
        self.horizon = horizon
        self.film_strip = film_strip
        self.step = -1  # optimiser steps of the weights that were rolled out last
        self.seconds = 0.0  # spent on rollouts, until whoever counts them sets it back
        self._pool: EnvPool | None = None
        self._filming_pool: EnvPool | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, DiffusionBC)
        # What cannot work should not wait for the first rollout.
        spec = pl_module.policy.spec
        rolls_out = stage in ("validate", "test") or (stage == "fit" and self.every_n_epochs > 0)
        if rolls_out or (spec.env_args is not None and spec.task is not None):
            self._env_spec(pl_module)
        if not rolls_out:
            return
        if stage == "fit":  # hours may lie before its first rollout; the others load their checkpoint, then roll out
            self._open(trainer, pl_module)

    def _open(self, trainer: Trainer, module: DiffusionBC) -> EnvPool:
        """The environments, built once; whatever the simulator or the policy's dimensions refuse is refused here."""
        if self._pool is None:
            workers = max(1, available_cpus() // _ranks_on_these_cpus(trainer))
            mine = -(-self.n_episodes // trainer.world_size)
            self._pool = EnvPool(self._env_spec(module), self.n_envs, workers, mine)
            check_fits(module.policy.spec, self._pool)
        return self._pool

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs == 0 and not _validates(trainer):
            rank_zero_warn(
                "nothing will be measured in this run: rollout.every_n_epochs is 0, and it ends without a validation. "
                "Give --rollout.every_n_epochs, or judge its policy afterwards: cli.py evaluate --checkpoint ..."
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (is_last_epoch(trainer) or (trainer.current_epoch + 1) % self.every_n_epochs == 0):
            self._rollout(trainer, pl_module)
            self.step = trainer.global_step

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.validating and not trainer.sanity_checking and trainer.state.fn == "validate":
            self._rollout(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rollout(trainer, pl_module, TEST_SEED)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        for pool in (self._pool, self._filming_pool):
            if pool is not None:
                pool.close()
        self._pool = self._filming_pool = None

    def _env_spec(self, module: DiffusionBC) -> EnvSpec:
        return simulation_of(module.policy.spec, None, self.horizon)[1]

    def _rollout(self, trainer: Trainer, pl_module: LightningModule, seed: int = SELECTION_SEED) -> None:
        assert isinstance(pl_module, DiffusionBC)
        begun = time.perf_counter()
        pool = self._open(trainer, pl_module)
        policy = pl_module.inference_policy
        agent = DiffusionAgent(policy)
        mine = range(trainer.global_rank, self.n_episodes, trainer.world_size)
        progress, done = find(trainer, RunProgress), itertools.count(1)

        def show(result: EpisodeResult) -> None:
            if progress is not None:
                progress.show_rollouts(next(done), len(mine))

        results = run_episodes(agent, pool, seed, mine, on_result=show)
        metrics = {
            METRIC: [float(result.success) for result in results],
            "rollout/episode_length": [float(result.length) for result in results],
            "rollout/return": [result.total_reward for result in results],
        }
        for name, values in metrics.items():
            # A metric of sums and counts is exact also where ranks ran unequal numbers of episodes.
            metric = MeanMetric().to(pl_module.device)
            if values:
                metric.update(torch.tensor(values, device=pl_module.device))
            pl_module.log(name, metric.compute(), prog_bar=name == METRIC)
        board = next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
        if self.film_strip and trainer.is_global_zero and board is not None:
            self._log_film_strip(board, trainer.global_step, pl_module, agent)
        self.seconds += time.perf_counter() - begun

    def _log_film_strip(self, logger: TensorBoardLogger, step: int, module: DiffusionBC, agent: DiffusionAgent) -> None:
        if self._filming_pool is None:
            spec = dataclasses.replace(self._env_spec(module), render_size=(128, 128))
            self._filming_pool = EnvPool(spec, n_envs=1)
        try:
            result = run_episodes(agent, self._filming_pool, SELECTION_SEED, [0], Capture(frames_every=5))[0]
        except UserError as error:  # a decoration: no reason to end the training
            warnings.warn(f"no film strip in TensorBoard: {error}", stacklevel=2)
            self.film_strip = 0
            self._filming_pool.close()
            self._filming_pool = None
            return
        strip = _film_strip(result, self.film_strip)
        logger.experiment.add_image("rollout/episode_0", strip, step, dataformats="HWC")


def _validates(trainer: Trainer) -> bool:
    every, epochs, data = trainer.check_val_every_n_epoch, trainer.max_epochs, trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(data, RobomimicDataModule) and not len(data.val_chunks):
        return False
    return trainer.enable_validation and not (every is not None and epochs is not None and 0 <= epochs < every)


def _ranks_on_these_cpus(trainer: Trainer) -> int:
    """How many ranks may use the same CPUs: all of a machine under torchrun; under SLURM each usually has its own."""
    if trainer.world_size == 1:
        return 1
    mine = (socket.gethostname(), sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None)
    everyones: list[object] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyones, mine)
    return everyones.count(mine)


def _film_strip(result: EpisodeResult, n_frames: int) -> np.ndarray:
    """Evenly spaced frames of an episode side by side, (H, n_frames * W, 3) uint8."""
    assert result.frames
    chosen = np.linspace(0, len(result.frames) - 1, n_frames).round().astype(int)
    return np.concatenate([result.frames[i] for i in chosen], axis=1)
