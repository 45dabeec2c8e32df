"""Robomimic low-dim files as a LightningDataModule."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from common.errors import UserError
from datamodules.batches import TensorBatches
from datamodules.chunks import ChunkDataset, window_chunks
from datamodules.conventions import check_alike, held_components
from datamodules.demonstrations import Demonstration
from datamodules.hdf5 import DatasetFile, warn_of_clipping
from datamodules.splits import split_of
from envs.tasks import DEFAULT_OBS_KEYS, TaskName
from policies.rotations import find_quaternions

# What a run that goes on must find as it was, and its flag: order and number of its batches follow from these.
RESUMED_WITH = {
    "data_sha256": "data.data_sha256",
    "train_filter_key": "data.train_filter_key",
    "val_filter_key": "data.val_filter_key",
    "n_demos": "data.n_demos",
    "pad_end": "data.pad_end",
    "global_batch_size": "data.global_batch_size",
    "accumulate_grad_batches": "trainer.accumulate_grad_batches",
}


class RobomimicDataModule(LightningDataModule):
    """Action chunks from one or several Robomimic files, held as tensors on the training device.

    Dimensions, ``env_args`` and fingerprint come from the files' headers at construction, so that the model can be
    built before any data is read.

    Args:
        path: an hdf5 file, or a list of files of the same task.
        task: null for another task, which the file's env_args then describe; needed for rollouts where it has none.
        obs_keys: observation keys to concatenate, in this order.
        pred_horizon: actions per chunk.
        batch_size: chunks per batch (and per GPU).
        train_filter_key: mask naming the training demonstrations; null takes all, and so does `train` where the file
            names none.
        val_filter_key: mask naming the validation demonstrations; null: no validation loss. Where the file names none
            under `valid`, a tenth of the training ones is held out.
        n_demos: train on the first so many demonstrations (of each file) only; null: on all.
        pad_end: let chunks run over the end of an episode: the gripper stays as it is, the hand stands still.
        seed: of the shuffling (linked from seed_everything).
    """

    train_chunks: ChunkDataset
    val_chunks: ChunkDataset

    def __init__(
        self,
        path: str | list[str],
        task: TaskName | None = None,
        obs_keys: Sequence[str] = DEFAULT_OBS_KEYS,
        pred_horizon: int = 4,
        batch_size: int = 256,
        train_filter_key: str | None = "train",
        val_filter_key: str | None = "valid",
        n_demos: int | None = None,
        pad_end: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {"pred_horizon": pred_horizon, "batch_size": batch_size, "n_demos": n_demos}.items():
            if value is not None and value < 1:
                raise UserError(f"data.{name} is {value}: expected at least 1")
        self.paths = [Path(path)] if isinstance(path, str) else [Path(each) for each in path]
        if not self.paths:
            raise UserError("data.path is an empty list: name at least one hdf5 file")
        if len(obs_keys) == 0:
            raise UserError("data.obs_keys is empty: name at least one observation key")
        self.task = task
        self.obs_keys = tuple(obs_keys)
        self.pred_horizon = pred_horizon
        self.batch_size = batch_size
        self.train_filter_key = train_filter_key
        self.val_filter_key = val_filter_key
        self.n_demos = n_demos
        self.pad_end = pad_end
        self.seed = seed
        self._train_batches: TensorBatches | None = None
        self._position: dict[str, Any] = {}
        self._read_headers()

    def _read_headers(self) -> None:
        headers = [_read_header(path, self.obs_keys) for path in self.paths]
        dims, env_args, digests, quaternions = zip(*headers, strict=True)
        stated = next((i for i, each in enumerate(env_args) if each is not None), 0)  # the first that says
        for path, other_dims, other_env_args in zip(self.paths, dims, env_args, strict=True):
            if other_dims != dims[0]:
                raise UserError(f"{path} has dims {other_dims}, {self.paths[0]} has {dims[0]}: expected the same task")
            if (first := env_args[stated]) is not None:
                check_alike(path, other_env_args, self.paths[stated], first)
        self.obs_dims = {key: dims[0][key] for key in self.obs_keys}
        self.action_dim = dims[0]["actions"]
        self.env_args: dict[str, Any] | None = env_args[stated]
        self.quaternions: list[int] = quaternions[0]  # where they begin in the flat observation
        # One file: its own hash, as sha256sum prints it.
        self.data_sha256 = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def setup(self, stage: str | None = None) -> None:
        """Read the files and cut the windows, once."""
        if stage in ("validate", "test", "predict") and self.val_filter_key is None:
            raise UserError(
                f"{TrainerFn(stage).value} needs demonstrations that were held out: data.val_filter_key is null. Name "
                f"a mask of {self._names()}, or judge the policy by its success rate: cli.py evaluate --checkpoint ..."
            )
        if hasattr(self, "train_chunks"):
            return
        self.train_chunks, self.val_chunks = self._read_chunks()
        if len(self.train_chunks) == 0:
            raise UserError(
                f"{self._names()}: every demonstration is shorter than pred_horizon {self.pred_horizon}: "
                "choose a shorter pred_horizon, or set data.pad_end"
            )
        if self.train_chunks.skipped:
            warnings.warn(
                f"{self._names()}: skipped {self.train_chunks.skipped} demonstrations shorter than pred_horizon "
                f"{self.pred_horizon}",
                stacklevel=2,
            )

    def _read_chunks(self) -> tuple[ChunkDataset, ChunkDataset]:
        """The windows that train and those that validate."""
        train: list[Demonstration] = []
        valid: list[Demonstration] = []
        for path in self.paths:
            with DatasetFile(path) as file:
                split = split_of(file, self.train_filter_key, self.val_filter_key, self.n_demos)
                parts = [[file.read(name, self.obs_keys, ()) for name in names] for names in (split.train, split.valid)]
            warn_of_clipping(path, [*parts[0], *parts[1]])
            if both := set(split.train) & set(split.valid):
                warnings.warn(
                    f"{path}: {len(both)} demonstrations are in both data.train_filter_key {self.train_filter_key} and "
                    f"data.val_filter_key {self.val_filter_key}: the validation loss will flatter",
                    stacklevel=2,
                )
            train += parts[0]
            valid += parts[1]
        return self._windows(train), self._windows(valid)

    def _windows(self, demonstrations: Sequence[Demonstration]) -> ChunkDataset:
        episodes: list[tuple[Tensor, Tensor]] = []
        for demonstration in demonstrations:
            # Through numpy: torch cannot take arrays of the other byte order.
            obs = np.concatenate([demonstration.obs[key] for key in self.obs_keys], axis=-1)
            arrays = (np.ascontiguousarray(array, np.float32) for array in (obs, demonstration.actions))
            obs_tensor, actions = map(torch.from_numpy, arrays)
            episodes.append((obs_tensor, actions))
        held = held_components(self.env_args, self.action_dim) if self.pad_end else None
        return window_chunks(episodes, self.pred_horizon, held)

    def _names(self) -> str:
        return ", ".join(str(path) for path in self.paths)

    def train_dataloader(self) -> TensorBatches:
        # trainer.overfit_batches asks for the same few batches over and over.
        shuffle = self.trainer is None or not self.trainer.overfit_batches  # type: ignore[attr-defined]
        self._train_batches = self._batches(self.train_chunks, shuffle, resumable=True)
        if self._position:
            self._train_batches.load_state_dict(self._position)
        return self._train_batches

    @property
    def global_batch_size(self) -> int:
        """``batch_size`` times the number of ranks: a run keeps it on another number of GPUs."""
        return self.batch_size * (1 if self.trainer is None else self.trainer.world_size)

    @property
    def accumulate_grad_batches(self) -> int | None:
        """Batches per optimiser step; None where a callback changes it in the course of the run."""
        if self.trainer is None or any(isinstance(c, GradientAccumulationScheduler) for c in self.trainer.callbacks):  # type: ignore[attr-defined]
            return None
        return self.trainer.accumulate_grad_batches

    def state_dict(self) -> dict[str, Any]:
        """The position within the epoch.

        Lightning would keep a loader's position by itself, but forgets it once an optimiser's schedule has asked for
        the number of steps (``estimated_stepping_batches`` builds the loader before the state is there).
        """
        if self._train_batches is None:
            return {}
        return {**self._train_batches.state_dict(), "settings": {name: getattr(self, name) for name in RESUMED_WITH}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next training epoch where ``state_dict`` was taken.

        Raises:
            UserError: training would go on with other data or in other batches.
        """
        self._position = state_dict
        if self.trainer is None or not self.trainer.training:
            return
        stored = state_dict.get("settings", {})  # absent in a checkpoint of an earlier version
        for name, flag in RESUMED_WITH.items():
            found, now = stored.get(name, getattr(self, name)), getattr(self, name)
            if found != now:
                raise UserError(
                    f"--resume goes on with a run of {flag} {found!r}, but data and config now say {now!r}: "
                    "give the same data and values, or start a new run without --resume"
                )

    def val_dataloader(self) -> TensorBatches | list[TensorBatches]:
        return self._batches(self.val_chunks) if len(self.val_chunks) else []

    def test_dataloader(self) -> TensorBatches | list[TensorBatches]:
        return self.val_dataloader()

    def predict_dataloader(self) -> TensorBatches | list[TensorBatches]:
        return self.val_dataloader()

    def _batches(self, chunks: ChunkDataset, shuffle: bool = False, resumable: bool = False) -> TensorBatches:
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        tensors = (chunks.obs.to(device), chunks.actions.to(device))
        return TensorBatches(tensors, self.batch_size, shuffle, self.seed, rank, world_size, resumable)


def _read_header(path: Path, obs_keys: Sequence[str]) -> tuple[dict[str, int], dict[str, Any] | None, str, list[int]]:
    """Sizes of the wanted keys and of "actions", env_args, fingerprint, where quaternions begin."""
    with DatasetFile(path) as file:
        dims = file.obs_dims()
        missing = [key for key in obs_keys if key not in dims]
        if missing:
            raise UserError(
                f"{path}: no observation key {', '.join(missing)}. Those there: {', '.join(sorted(dims))}. "
                "Choose with data.obs_keys."
            )
        first = file.read(file.names()[0], list(obs_keys), ())
        sizes = {key: dims[key] for key in obs_keys} | {"actions": first.actions.shape[1]}
        obs = np.concatenate([first.obs[key] for key in obs_keys], axis=-1).astype(np.float64)
        return sizes, file.env_args, file.sha256, find_quaternions(torch.from_numpy(obs))
