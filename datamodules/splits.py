"""Which demonstrations of a file train and which validate."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UserError
from datamodules.hdf5 import DatasetFile

VALIDATION_SHARE = 0.1
# Robomimic's own filter keys. Where a file lacks what they name, one does without; a key of another name is the user's
# choice, and must be there.
USUAL_KEYS = ("train", "valid")
# A property of the file, not of a run: runs of other seeds must validate on the same demonstrations.
HOLD_OUT_SEED = 0


@dataclass(frozen=True)
class Split:
    """Names of demonstrations, in numerical order."""

    train: list[str]
    valid: list[str]


def split_of(file: DatasetFile, train_filter_key: str | None, val_filter_key: str | None, n_demos: int | None) -> Split:
    """The demonstrations that train and those that validate.

    Where ``mask/train`` is not there, or names nothing that is, all demonstrations train. Where ``mask/valid`` is so, a
    tenth of the training ones, drawn by a fixed seed, is held out for validation. Each is noted by a warning.

    Args:
        file: open.
        train_filter_key: mask naming the training demonstrations; None takes all.
        val_filter_key: mask naming the validation demonstrations; None: none.
        n_demos: train on the first so many only; None: on all of them.

    Raises:
        UserError: a filter key of another name is not there or names nothing that is; fewer demonstrations than
            ``n_demos``.
    """
    train_key, val_key = (_usable(file, key) for key in (train_filter_key, val_filter_key))
    train, valid = file.names(train_key), file.names(val_key) if val_key else []
    holds_out = val_key is None and val_filter_key is not None and len(train) > 1
    if train_key is None and train_filter_key is not None:
        train = [name for name in train if name not in set(valid)] or train
        if not holds_out:  # else the next warning says it
            warnings.warn(
                f"{file.path}: no demonstrations under mask/{train_filter_key}: training on"
                f" {'all' if not valid else 'the other'} {len(train)}",
                stacklevel=2,
            )
    if holds_out:
        valid = held_out(train, HOLD_OUT_SEED)
        train = [name for name in train if name not in set(valid)]
        warnings.warn(
            f"{file.path}: no demonstrations under mask/{val_filter_key}: {len(valid)} are held out for validation,"
            f" {len(train)} train",
            stacklevel=2,
        )
    if n_demos is not None and n_demos > len(train):
        raise UserError(f"data.n_demos is {n_demos}, but {file.path} has {len(train)} demonstrations to train on.")
    return Split(train[:n_demos], valid)


def _usable(file: DatasetFile, key: str | None) -> str | None:
    """``key``, unless it is a usual one under which the file has nothing."""
    usable = key not in USUAL_KEYS or (key in file.masks and file.absent(key) < len(set(file.masks[key])))
    return key if usable else None


def held_out(names: Sequence[str], seed: int) -> list[str]:
    """A tenth of the names, at least one but never all, drawn by ``seed``; in the order of ``names``."""
    n = min(max(1, int(VALIDATION_SHARE * len(names))), len(names) - 1)
    chosen = np.random.default_rng(seed).permutation(len(names))[:n]
    return [names[i] for i in sorted(chosen)]


def split_masks(n_demos: int, seed: int) -> dict[str, list[str]]:
    """Robomimic's filter keys for a new file: ``valid`` is a tenth of the demonstrations, ``train`` the rest."""
    names = [f"demo_{i}" for i in range(n_demos)]
    valid = held_out(names, seed)
    return {"train": [name for name in names if name not in set(valid)], "valid": valid}
