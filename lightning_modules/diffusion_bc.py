"""Diffusion behavioural cloning as a LightningModule."""

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import ModuleDict
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from common.compilation import COMPILE_MODES, Compilation
from common.errors import UserError
from lightning_modules.resuming import check_progress, reopen_epoch, warn_of_another_schedule
from lightning_modules.schedules import LRSchedule, lr_factor
from policies import DiffusionConfig, DiffusionPolicy, NetworkConfig, PolicySpec
from policies.networks import MLPNoiseNetwork, NoiseNetwork
from policies.storage import SPEC_KEY

Batch = tuple[Tensor, Tensor]
Range = tuple[Tensor, Tensor]
Rotations = Literal["quaternion", "6d"]
NetworkFactory = Callable[[int, int, int, int], NoiseNetwork]
DEFAULT_DIFFUSION = DiffusionConfig()
# Those in which weights, normalisers and average stay in single precision.
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")

Stage = Literal["training", "validation", "test", "sampling"]


class DiffusionBC(LightningModule):
    """Trains a ``DiffusionPolicy`` on (observation, action chunk) pairs.

    The noise of every batch is a pure function of (seed, rank, stage, batch count): ranks draw differently, and a
    resumed run draws what an uninterrupted one would have drawn.

    Batches are pairs of observations (B, obs_dim) and action chunks (B, pred_horizon, action_dim), in raw units. Any
    loader of them will do: the normalisers take their ranges from it when a module is first fitted, and keep them in a
    later ``fit`` on other data, because the weights were trained with them.

    Args:
        obs_dims: observation key -> size, in order of concatenation (linked from the data).
        action_dim: size of one action (linked from the data).
        pred_horizon: actions per chunk (linked from the data).
        env_args: Robomimic's description of the environment (linked from the data).
        task: short name of one of this project's tasks, or None (linked from the data).
        data_sha256: fingerprint of the data (linked from the data).
        quaternions: where unit quaternions begin in the flat observation (linked from the data).
        rotations: how the network gets them: as stored, or as two rows of the rotation matrix, which have no sign to
            flip (``policies.rotations``).
        network: the noise network: a ``NoiseNetwork`` class, or a ``functools.partial`` of one; in YAML its class_path
            and init_args.
        diffusion: the diffusion process.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW.
        lr_schedule: how the learning rate falls over the run.
        warmup_steps: optimiser steps of linear warm-up.
        seed: of the training noise (linked from seed_everything).
        compile_network: off; kernels: ``torch.compile`` of the noise network; cuda_graphs: the same, replayed as CUDA
            graphs (``torch.compile``'s reduce-overhead), for a GPU that waits for launches. Kernels pay on a CPU too,
            in runs of more than a few minutes.
    """

    ema_updates: Tensor

    def __init__(
        self,
        obs_dims: dict[str, int],
        action_dim: int,
        pred_horizon: int,
        env_args: dict[str, Any] | None = None,
        task: str | None = None,
        data_sha256: str | None = None,
        quaternions: Sequence[int] = (),
        rotations: Rotations = "quaternion",
        network: NetworkFactory = MLPNoiseNetwork,
        diffusion: DiffusionConfig = DEFAULT_DIFFUSION,
        lr: float = 1e-4,
        weight_decay: float = 1e-6,
        lr_schedule: LRSchedule = "cosine",
        warmup_steps: int = 0,
        seed: int = 0,
        compile_network: Compilation = "off",
    ) -> None:
        super().__init__()
        if not 0 < lr < math.inf:
            raise UserError(f"model.lr is {lr}: expected a positive number, such as 1e-4")
        if not 0 <= weight_decay < math.inf:
            raise UserError(f"model.weight_decay is {weight_decay}: expected 0 or more, such as 1e-6")
        if warmup_steps < 0 or seed < 0:
            raise UserError(f"model.warmup_steps is {warmup_steps} and seed_everything {seed}: expected 0 or more")
        if lr_schedule not in get_args(LRSchedule):
            raise UserError(f"model.lr_schedule is {lr_schedule!r}: expected one of {get_args(LRSchedule)}")
        if rotations not in get_args(Rotations):
            raise UserError(f"model.rotations is {rotations!r}: expected one of {get_args(Rotations)}")
        if rotations == "6d" and len(quaternions) == 0:
            raise UserError(
                f"model.rotations is 6d, but no unit quaternion is known in the observations {', '.join(obs_dims)}: "
                "give model.rotations quaternion, or from a script the data module's quaternions"
            )
        spec = PolicySpec(
            obs_dims=dict(obs_dims),
            action_dim=action_dim,
            pred_horizon=pred_horizon,
            network=_network_config(network),
            diffusion=DiffusionConfig(**diffusion) if isinstance(diffusion, Mapping) else diffusion,
            env_args=env_args,
            task=task,
            data_sha256=data_sha256,
            quaternions=list(quaternions) if rotations == "6d" else [],
        )
        # Plain values only: the checkpoint is read back with weights_only=True.
        self.save_hyperparameters(
            {
                "obs_dims": spec.obs_dims,
                "action_dim": action_dim,
                "pred_horizon": pred_horizon,
                "env_args": env_args,
                "task": task,
                "data_sha256": data_sha256,
                "quaternions": list(quaternions),
                "rotations": rotations,
                "network": dataclasses.asdict(spec.network),
                "diffusion": dataclasses.asdict(spec.diffusion),
                "lr": lr,
                "weight_decay": weight_decay,
                "lr_schedule": lr_schedule,
                "warmup_steps": warmup_steps,
                "seed": seed,
                "compile_network": compile_network,
            }
        )
        self.seed = seed
        self.policy = DiffusionPolicy(spec)
        # The moving average lives in the module, not swapped into it: nothing can leave it in the wrong place. It is
        # fed by callbacks.EMA.
        self.ema_policy = copy.deepcopy(self.policy).requires_grad_(False).eval()
        self.register_buffer("ema_updates", torch.zeros((), dtype=torch.long))
        # All but the network's own buffers are constants, or follow from the weights: the same on every rank. DDP,
        # which reads this name, would broadcast them at each forward pass.
        own = {f"policy.network.{name}" for name in self.policy.network.state_dict()}
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers() if name not in own]
        if compile_network != "off":
            self.policy.network.compile(mode=COMPILE_MODES[compile_network])
        names = ("val_loss", "test_loss", "test_action_mse")
        # A NaN shall show as NaN; "disable", which would say so, makes torchmetrics 1.9 forget the weights.
        self._means = ModuleDict({name: MeanMetric(nan_strategy=float("nan")) for name in names})
        self._loss_sum: Tensor | None = None
        self._loss_count = 0
        self._normalizers_are_set = False
        self._loaded_step = 0
        self._is_resuming = False

    @property
    def inference_policy(self) -> DiffusionPolicy:
        """The policy to deploy, in eval mode: the moving average once it has been fed, a copy of the weights before.

        Its spec says which of the two it is and how many optimiser steps are behind it.
        """
        averaged = bool(self.ema_updates > 0)
        policy = self.ema_policy if averaged else copy.deepcopy(self.policy).requires_grad_(False).eval()
        policy.spec.weights = "ema" if averaged else "raw"
        policy.spec.train_step = max(self._loaded_step, self.global_step)
        return policy

    def set_normalizers(self, obs: Tensor, actions: Tensor) -> None:
        """Take both normalisers' ranges from training data: (N, obs_dim) and (N, pred_horizon, action_dim)."""
        features = self.policy.features(obs)
        self._set_ranges((features.amin(0), features.amax(0)), (actions.amin(0), actions.amax(0)))

    def _set_ranges(self, obs: Range, actions: Range) -> None:
        for policy in (self.policy, self.ema_policy):
            policy.obs_normalizer.set_range(*obs)
            policy.action_normalizer.set_range(*actions)
        self._normalizers_are_set = True

    def setup(self, stage: str) -> None:
        """Refuse what cannot work before anything is computed.

        Raises:
            UserError: a precision in which normalisers or average would lose digits, fp16 with clipped gradients, or
                an interval of zero.
        """
        self._is_resuming = stage == "fit"
        precision = self.trainer.precision
        if precision not in PRECISIONS:
            raise UserError(
                f"trainer.precision is {precision}: expected one of {', '.join(PRECISIONS)}. Weights, normalisers and "
                "average are kept in single precision: half of it loses millimetres of the hand's position"
            )
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
            interval = getattr(self.trainer, name)
            if interval is not None and interval < 1:
                raise UserError(f"trainer.{name} is {interval}: expected at least 1")
        # Lightning refuses to clip for a fused optimiser under any mixed precision, because fp16 gradients are still
        # scaled there. fp32 and bf16 gradients are not.
        if precision == "16-mixed" and self.trainer.gradient_clip_val and stage == "fit":
            raise UserError(
                "trainer.precision 16-mixed cannot be combined with gradient_clip_val: use bf16-mixed, or clip nothing"
            )

    def on_fit_start(self) -> None:
        """Take the normalisers' ranges from the training data, unless the weights were trained with others.

        Raises:
            UserError: the batches are not what the module was made for.
        """
        if self.trainer.ckpt_path is not None:
            return
        self.trainer.fit_loop.setup_data()  # if nothing has asked for the loader yet
        loader = self.trainer.train_dataloader
        if sized_len(loader) is None:  # a stream, which may go on for ever
            if self._normalizers_are_set:
                return
            raise UserError(
                "the training loader has no length, so the normalisers cannot be fitted to it: call "
                "set_normalizers(obs, actions) of the module first"
            )
        obs, actions = self._ranges(loader)
        if not self._normalizers_are_set:
            self._set_ranges(obs, actions)
        elif any(
            bool((low < normalizer.low.cpu()).any() or (high > normalizer.high.cpu()).any())
            for normalizer, (low, high) in (
                (self.policy.obs_normalizer, obs),
                (self.policy.action_normalizer, actions),
            )
        ):
            warnings.warn(
                "these data lie partly beyond the range that the module's normalisers were fitted to. They stay as "
                "they are, since the weights were trained with them: actions beyond it cannot be learnt. For other "
                "normalisers train a new module",
                stacklevel=2,
            )

    def _ranges(self, loader: Any) -> tuple[Range, Range]:
        """Least and greatest value of each entry of the observations and of the chunks, over all ranks; on the CPU."""
        lows, highs = self._extremes(loader)
        if self.trainer.world_size > 1:
            lows = [self.trainer.strategy.all_gather(low.to(self.device)).amin(0).cpu() for low in lows]
            highs = [self.trainer.strategy.all_gather(high.to(self.device)).amax(0).cpu() for high in highs]
        return (lows[0], highs[0]), (lows[1], highs[1])

    def _extremes(self, loader: Iterable[Batch]) -> tuple[list[Tensor], list[Tensor]]:
        shapes = [(self.policy.spec.obs_dim,), self.policy.chunk_shape]
        ranges = [(self.policy.spec.feature_dim,), self.policy.chunk_shape]
        lows = [torch.full(shape, math.inf) for shape in ranges]
        highs = [torch.full(shape, -math.inf) for shape in ranges]
        features = copy.deepcopy(self.policy.features).cpu()
        for batch in loader:
            found = [tuple(tensor.shape[1:]) for tensor in batch]
            if found != shapes:
                raise UserError(
                    f"the training batches hold samples of shapes {found}, expected {shapes}: observations and action "
                    "chunks, as obs_dims, pred_horizon and action_dim of the module say"
                )
            values = (features(batch[0].cpu()), batch[1].cpu())
            lows = [torch.minimum(low, each.amin(0)) for low, each in zip(lows, values, strict=True)]
            highs = [torch.maximum(high, each.amax(0)) for high, each in zip(highs, values, strict=True)]
        return lows, highs

    def on_train_start(self) -> None:
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LambdaLR):
            warn_of_another_schedule(scheduler)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        obs, actions = batch
        with self._draws("training", self.trainer.fit_loop.total_batch_idx) as generator:
            loss = self.policy.loss(obs, actions, generator)
        loader: Any = self.trainer.train_dataloader
        # A loader of Lightning's own deals out batches of equal size.
        if self.trainer.world_size > 1 and hasattr(loader, "global_batch_size"):
            # DDP averages the ranks' gradients; where their batches differ in size, each sample must still count once.
            loss = loss * (len(obs) * self.trainer.world_size / loader.global_batch_size(batch_idx))
        # Summed on the device and logged once per epoch: reading it at each step would stall a GPU.
        detached = loss.detach()
        self._loss_sum = detached if self._loss_sum is None else self._loss_sum + detached
        self._loss_count += 1
        return loss

    def on_train_epoch_end(self) -> None:
        if self._loss_sum is not None:
            self.log("train/loss", self._loss_sum / self._loss_count, prog_bar=True, sync_dist=True)
        self._loss_sum, self._loss_count = None, 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_loss("validation", "val/loss", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_loss("test", "test/loss", batch, batch_idx)
        obs, actions = batch
        error = (self.predict_step(batch, batch_idx) - actions).square().mean() if len(obs) else 0.0
        self._log_mean("test/action_mse", error, len(obs))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sampled action chunks (B, pred_horizon, action_dim) for the batch's observations."""
        with self._draws("sampling", batch_idx) as generator:
            return self._judged.sample(batch[0], generator)

    @property
    def _judged(self) -> DiffusionPolicy:
        # As inference_policy, without its copy: Lightning has set the module to eval mode.
        return self.ema_policy if self.ema_updates > 0 else self.policy

    def _log_loss(self, stage: Stage, name: str, batch: Batch, batch_idx: int) -> None:
        # The same noise at each validation, so that the curve shows the policy's change alone.
        with self._draws(stage, batch_idx) as generator:
            loss = self._judged.loss(*batch, generator=generator) if len(batch[0]) else 0.0
        self._log_mean(name, loss, len(batch[0]))

    def _log_mean(self, name: str, value: Tensor | float, samples: int) -> None:
        # A metric of sums: Lightning's own reduction of unequal batches over ranks divides by a rounded count.
        metric = self._means[name.replace("/", "_")]
        assert isinstance(metric, MeanMetric)
        metric.update(value, weight=samples)
        self.log(name, metric, prog_bar=name.endswith("loss"))

    @contextmanager
    def _draws(self, stage: Stage, count: int) -> Iterator[torch.Generator]:
        """A generator for batch ``count`` of a stage.

        It is the device's own, so that a network's dropout too depends on nothing but seed, rank, stage and count; and
        it is left as it was found, for whoever else draws from it.
        """
        generator = torch.default_generator
        if self.device.type == "cuda":
            generator = torch.cuda.default_generators[self.device.index or 0]
        # A trailing zero changes no seed: training, the 0th stage, draws as it did before stages were told apart.
        words = (self.seed, self.global_rank, count, get_args(Stage).index(stage))
        entropy = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
        found = generator.get_state()
        try:
            yield generator.manual_seed(int(entropy >> np.uint64(1)))
        finally:
            generator.set_state(found)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        settings: Any = self.hparams
        optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total) and settings.lr_schedule != "constant":
            raise UserError(
                f"model.lr_schedule {settings.lr_schedule} needs to know how long the run is: set trainer.max_epochs "
                "or trainer.max_steps, or model.lr_schedule constant"
            )
        scheduler = LambdaLR(optimizer, lr_factor(settings.lr_schedule, settings.warmup_steps, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning's own clipping refuses a fused optimiser under mixed precision; setup has refused where it must.
        if gradient_clip_val and gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.policy.parameters(), gradient_clip_val)
        elif gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[SPEC_KEY] = self.policy.spec.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = PolicySpec.from_dict(checkpoint.get(SPEC_KEY), "the checkpoint")
        own = self.policy.spec
        for field in ("obs_dims", "action_dim", "pred_horizon", "quaternions", "network", "diffusion"):
            found, expected = getattr(stored, field), getattr(own, field)
            # Observations are concatenated in the order of the keys, which the equality of dicts ignores.
            if found != expected or (field == "obs_dims" and list(found) != list(expected)):
                raise UserError(
                    f"the checkpoint does not fit this run: it has {field} {_plain(found)}, data and config say "
                    f"{_plain(expected)}. The config.yaml beside a checkpoint has its settings: give that as --config, "
                    "in place of yours"
                )
        self._normalizers_are_set = True
        self._loaded_step = int(checkpoint.get("global_step", 0))
        if self._is_resuming:
            self._check_resumed(checkpoint.get("hyper_parameters", {}))
            check_progress(checkpoint["loops"].get("fit_loop"), self.trainer.fit_loop.state_dict(), "loops.fit_loop")
            reopen_epoch(checkpoint["loops"]["fit_loop"])

    def _check_resumed(self, stored: Mapping[str, Any]) -> None:
        # The optimiser's state carries its old settings: other values in the config would silently have no effect.
        for name in ("lr", "weight_decay", "lr_schedule", "warmup_steps", "seed"):
            if name in stored and stored[name] != self.hparams[name]:
                raise UserError(
                    f"--resume goes on with a run of {name} {stored[name]!r}, but data and config now say "
                    f"{self.hparams[name]!r}: give the same values, or start a new run without --resume"
                )


def _network_config(network: NetworkFactory | Mapping[str, Any]) -> NetworkConfig:
    # A mapping comes from a checkpoint's hyperparameters.
    return NetworkConfig(**network) if isinstance(network, Mapping) else NetworkConfig.describe(network)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
