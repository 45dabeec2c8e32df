"""Reading Robomimic's low-dim hdf5 file, with every check that bad input needs.

Layout, as robomimic 0.3 writes it (``robomimic/scripts/dataset_states_to_obs.py``)::

    data                 attrs: env_args (JSON), total
      demo_<i>           attrs: num_samples, model_file
        actions (T, A)  states (T, S)  rewards (T,)  dones (T,)  obs/<key> (T, d)  next_obs/<key> (T, d)
    mask/<filter_key>    byte strings naming demonstrations

A file may come from a stranger: nothing in it is unpickled or followed out of the file, and whatever is wrong with it
ends as one `UserError`. Tolerated, because files in the wild have it: no ``env_args``, no ``total``, attributes stored
as strings, masks that name absent demonstrations, rewards of shape (T, 1), observations that are no vectors, actions
beyond the controller's range.
"""

import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from common.controllers import are_absolute
from common.errors import UserError
from common.files import sha256_of
from datamodules.damage import reports_damage
from datamodules.demonstrations import Demonstration

ACTION_TOLERANCE = 1e-6  # beyond [-1, 1], for actions that went through float32
OPTIONAL = ("states", "rewards", "dones", "next_obs")
LARGEST_ARRAY = 10**9  # elements; a few bytes of hdf5 can declare an array that no memory holds
DEMONSTRATION_NAME = re.compile(r"demo_(\d+)")


class DatasetFile:
    """A Robomimic low-dim file, open for reading; use as a context manager.

    Args:
        path: the hdf5 file.

    Raises:
        UserError: the file is missing, no hdf5, truncated, or holds no demonstrations; its ``env_args`` are malformed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    @reports_damage
    def _read_header(self) -> None:
        data = self._file.get("data")
        if not isinstance(data, h5py.Group):
            there = ", ".join(_names_in(self._file)) or "nothing"
            raise UserError(f"{self.path}: no group 'data', only {there}. Expected Robomimic's low-dim hdf5 layout.")
        self._data = data
        numbers = {name: int(match[1]) for name in _names_in(data) if (match := DEMONSTRATION_NAME.fullmatch(name))}
        self._names = sorted((n for n in numbers if isinstance(data.get(n), h5py.Group)), key=numbers.__getitem__)
        if not self._names:
            raise UserError(f"{self.path}: 'data' holds no demonstrations. Expected groups demo_0, demo_1, ...")
        self.env_args = self._read_env_args()
        self.masks = self._read_masks()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of the whole file."""
        return sha256_of(self.path)

    @property
    @reports_damage
    def attributes(self) -> dict[str, str]:
        """The header's attributes other than ``env_args``, as text."""
        return {key: _text(value) for key, value in self._data.attrs.items() if key != "env_args"}

    @reports_damage
    def obs_dims(self) -> dict[str, int]:
        """Dimension of each low-dim observation key, from the first demonstration's header."""
        obs = self._data[self._names[0]].get("obs")
        if not isinstance(obs, h5py.Group):
            raise UserError(
                f"{self.path}: {self._names[0]} has no group 'obs'. Expected a low-dim file: `convert` makes one of a "
                "raw recording."
            )
        return {
            key: value.shape[1] for key, value in obs.items() if isinstance(value, h5py.Dataset) and value.ndim == 2
        }

    def names(self, filter_key: str | None = None) -> list[str]:
        """Demonstrations in the order of their numbers: all, or those that ``mask/<filter_key>`` names and that exist.

        Raises:
            UserError: the filter key is not there, or none of the demonstrations it names is.
        """
        if filter_key is None:
            return list(self._names)
        if filter_key not in self.masks:
            there = ", ".join(sorted(self.masks)) or "none"
            raise UserError(f"{self.path}: no filter key '{filter_key}'. Filter keys there: {there}.")
        wanted = set(self.masks[filter_key])
        names = [name for name in self._names if name in wanted]
        if not names:
            raise UserError(
                f"{self.path}: filter key '{filter_key}' names {len(wanted)} demonstrations, none of which is there."
                " Choose another filter key, or none."
            )
        return names

    def numbered(self, demos: str) -> list[str]:
        """The demonstrations of these numbers, such as "0,3,7-9", each once.

        Raises:
            UserError: that is no such list, or one of them is not there.
        """
        parts = [re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII) for part in demos.split(",")]
        bounds = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
        if not all(parts) or any(first > last for first, last in bounds):
            raise UserError(f"--demos is {demos}: expected numbers of demonstrations, such as 0,3,7-9")
        there = {int(name.removeprefix("demo_")): name for name in self._names}
        missing = {f"demo_{end}": None for pair in bounds for end in pair if end not in there}
        if missing:
            raise UserError(
                f"--demos {demos}: {self.path} has no {', '.join(missing)}. It holds {len(there)}, from "
                f"{self._names[0]} to {self._names[-1]}"
            )
        return [name for number, name in there.items() if any(first <= number <= last for first, last in bounds)]

    def absent(self, filter_key: str) -> int:
        """How many demonstrations ``mask/<filter_key>`` names that are not in the file."""
        return len(set(self.masks[filter_key]) - set(self._names))

    def read(
        self, name: str, obs_keys: Sequence[str] | None = None, fields: Collection[str] = OPTIONAL
    ) -> Demonstration:
        """One demonstration, arrays in the file's own precision.

        Motions are clipped to [-1, 1], as robosuite's controller does; absolute poses are left as they are.

        Args:
            name: of the demonstration.
            obs_keys: the observation keys to read; None: all that are vectors.
            fields: what to read beside them, where the file has it. What is not read is not checked either.

        Raises:
            UserError: a key is missing or mis-shaped, lengths differ, a value is NaN.
        """
        demonstration, faults = self.examine(name, obs_keys, fields)
        if faults:
            more = f" ({len(faults) - 1} more: see `inspect`)" if len(faults) > 1 else ""
            raise UserError(faults[0] + more)
        return demonstration

    @reports_damage
    def notes(self) -> list[str]:
        """What is unusual about the file, and tolerated."""
        notes = [f"no attribute '{key}' on 'data'" for key in ("env_args", "total") if key not in self._data.attrs]
        strange = [name for name in _names_in(self._data) if name not in self._names]
        if strange:
            notes.append(
                f"{len(strange)} entries of 'data' are no demonstrations and are ignored, such as {strange[0]!r}"
            )
        for key, named in self.masks.items():
            if absent := self.absent(key):
                notes.append(f"mask/{key} names {len(named)} demonstrations, of which {absent} are not in the file")
        for name in self._names:
            stated = _text(self._data[name].attrs.get("num_samples", "nothing"))
            actions = self._data[name].get("actions")
            if isinstance(actions, h5py.Dataset) and actions.shape and stated != str(actions.shape[0]):
                notes.append(f"{name}: num_samples says {stated}, but there are {actions.shape[0]} actions")
        dims, obs = self.obs_dims(), self._data[self._names[0]]["obs"]
        for key in sorted(set(_names_in(obs)) - set(dims)):
            shape = getattr(obs.get(key), "shape", "of no array")
            notes.append(f"obs/{key} has shape {shape}: only observations of shape (T, d) are read")
        return notes

    @reports_damage
    def examine(
        self, name: str, obs_keys: Sequence[str] | None = None, fields: Collection[str] = OPTIONAL
    ) -> tuple[Demonstration, list[str]]:
        """Load what can be loaded of a demonstration, and list what is wrong with it, one message each; see `read`."""
        group, dims = self._data[name], {} if obs_keys == () else self.obs_dims()  # a raw file has no observations
        keys = list(dims) if obs_keys is None else list(obs_keys)
        # Array -> its second dimension, -1: any, None: it has none.
        shapes: dict[str, int | None] = {"actions": self._action_dim}
        shapes |= {f"obs/{key}": dims.get(key, -1) for key in keys}
        if "next_obs" in fields and isinstance(group.get("next_obs"), h5py.Group):
            shapes |= {f"next_obs/{key}": dims.get(key, -1) for key in keys}
        shapes |= {key: None for key in ("rewards", "dones") if key in fields and key in group}
        shapes |= {"states": -1} if "states" in fields and "states" in group else {}
        arrays, faults = self._load_all(group, shapes)
        actions = arrays.get("actions", np.empty((0, 0)))
        n_clipped = 0
        if not are_absolute(self.env_args):
            exact = actions.astype(np.float64)  # a file may store small integers
            n_clipped = int(np.count_nonzero(np.abs(exact) > 1 + ACTION_TOLERANCE))
            actions = exact.clip(-1, 1) if n_clipped else actions
        return Demonstration(
            actions=actions,
            obs={key: arrays[f"obs/{key}"] for key in keys if f"obs/{key}" in arrays},
            next_obs={key: arrays[f"next_obs/{key}"] for key in keys if f"next_obs/{key}" in arrays},
            model_file=_text(group.attrs.get("model_file", "")),
            n_clipped=n_clipped,
            **{key: arrays[key] for key in ("states", "rewards", "dones") if key in arrays},
        ), faults

    @reports_damage
    def faults_of_next_obs(self, name: str) -> list[str]:
        """What is wrong with a demonstration's ``next_obs``, which no command reads."""
        group = self._data[name]
        if not isinstance(group.get("next_obs"), h5py.Group):
            return []
        shapes: dict[str, int | None] = {f"next_obs/{key}": dim for key, dim in self.obs_dims().items()}
        return self._load_all(group, {"actions": self._action_dim, **shapes})[1]

    def _load_all(self, group: h5py.Group, shapes: Mapping[str, int | None]) -> tuple[dict[str, np.ndarray], list[str]]:
        """The arrays of these shapes that can be loaded, and what is wrong with each or between them."""
        arrays: dict[str, np.ndarray] = {}
        faults: list[str] = []
        for key, dim in shapes.items():
            try:
                arrays[key] = self._load(group, key, dim)
            except UserError as error:
                faults.append(str(error))
        where = f"{self.path}: {group.name.removeprefix('/data/')}"
        lengths = {key: len(array) for key, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            faults.append(
                f"{where} has arrays of unequal length: {lengths}. The file is damaged or was edited by hand."
            )
        if 0 in lengths.values():
            faults.append(f"{where} is empty: an episode has at least one transition.")
        for key, array in arrays.items():
            if bad := array.size - int(np.count_nonzero(np.isfinite(array))):
                faults.append(f"{where}/{key} has {bad} values that are NaN or infinite. Expected finite numbers.")
        return arrays, faults

    @cached_property
    def _action_dim(self) -> int:
        """Of the first demonstration, to which all others must agree; -1 where that cannot be told."""
        actions = self._data[self._names[0]].get("actions")
        return actions.shape[1] if isinstance(actions, h5py.Dataset) and actions.ndim == 2 else -1

    def _load(self, group: h5py.Group, key: str, dim: int | None) -> np.ndarray:
        """The numbers at ``key``: (T, dim), (T,) if dim is None, where (T, 1) serves too, (T, anything) if it is -1."""
        where = f"{self.path}: {group.name.removeprefix('/data/')}/{key}"
        dataset = group.get(key)
        if not isinstance(dataset, h5py.Dataset):
            parent = group.get(key.rpartition("/")[0]) if "/" in key else group
            there = ", ".join(sorted(_names_in(parent))) if isinstance(parent, h5py.Group) else "nothing"
            raise UserError(f"{where} is missing. Those there: {there}.")
        if dataset.file.filename != self._file.filename or dataset.is_virtual or dataset.external:
            raise UserError(f"{where} leads to another file, which is not followed. Expected the numbers themselves.")
        wanted = "(T,)" if dim is None else "(T, d)" if dim < 0 else f"(T, {dim})"
        if dim is None:
            fits = dataset.ndim == 1 or dataset.shape[1:] == (1,)
        else:
            fits = dataset.ndim == 2 and dim in (-1, dataset.shape[1])
        if not fits or dataset.size > LARGEST_ARRAY:
            raise UserError(f"{where} has shape {dataset.shape}. Expected {wanted}.")
        if dataset.dtype.kind not in "fiub":
            raise UserError(f"{where} holds {dataset.dtype}. Expected numbers.")
        try:
            return dataset[()].ravel() if dim is None else dataset[()]
        except (OSError, RuntimeError) as error:
            raise UserError(f"{where} cannot be read ({error}). The file is damaged: fetch it again.") from error

    def _read_env_args(self) -> dict[str, Any] | None:
        if "env_args" not in self._data.attrs:
            return None
        try:
            env_args = json.loads(_text(self._data.attrs["env_args"]))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path}: attribute 'env_args' is not JSON ({error}).") from error
        if not isinstance(env_args, dict) or not isinstance(env_args.get("env_name"), str):
            raise UserError(
                f"{self.path}: attribute 'env_args' names no environment. Expected an object with 'env_name'."
            )
        if not isinstance(env_args.get("env_kwargs", {}), dict):
            raise UserError(f"{self.path}: 'env_kwargs' in attribute 'env_args' is not an object.")
        return env_args

    def _read_masks(self) -> dict[str, list[str]]:
        masks = self._file.get("mask")
        if not isinstance(masks, h5py.Group):
            return {}
        return {
            key: [_text(name) for name in value[()].ravel()]
            for key in _names_in(masks)
            if isinstance(value := masks.get(key), h5py.Dataset)
            and value.dtype.kind in "SO"
            and value.size <= LARGEST_ARRAY
        }


def load_arrays(
    path: str | Path,
    obs_keys: Sequence[str],
    filter_key: str | None = None,
    fields: Collection[str] = OPTIONAL,
    n: int | None = None,
) -> dict[str, Demonstration]:
    """The first ``n`` demonstrations of a file, or of one of its filter keys, by name in numerical order.

    See `DatasetFile.read` for what is checked; ``n`` None: all.

    Warns where actions had to be clipped.

    Raises:
        UserError: anything is wrong with the file or with one of these demonstrations, or they are fewer than ``n``.
    """
    with DatasetFile(path) as file:
        names = file.names(filter_key)
        if n is not None and n > len(names):
            raise UserError(f"{path}: {n} demonstrations are asked for, and it holds {len(names)}.")
        demonstrations = {name: file.read(name, obs_keys, fields) for name in names[:n]}
    warn_of_clipping(path, demonstrations.values())
    return demonstrations


def warn_of_clipping(path: str | Path, demonstrations: Collection[Demonstration]) -> None:
    """Say how many actions were clipped, where any were."""
    n_values = sum(demonstration.actions.size for demonstration in demonstrations)
    if note := clipping_note(sum(demonstration.n_clipped for demonstration in demonstrations), n_values):
        warnings.warn(f"{path}: {note}", stacklevel=3)


def clipping_note(n_clipped: int, n_values: int) -> str | None:
    """What to tell of actions that were clipped; None where none were."""
    if n_clipped == 0:
        return None
    return (
        f"{n_clipped} action values ({n_clipped / n_values:.2%}) lie outside [-1, 1]: they are clipped, as robosuite's"
        " controller does"
    )


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise UserError(f"{path}: no such file. Make one with `collect`, or fetch one with `download`.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "unable to lock file" in str(error) or "already open for write" in str(error):
            raise UserError(
                f"{path} is open for writing in another program, so that what it holds may change ({error}). Wait until"
                " that program has closed it, or read a copy."
            ) from error
        truncated = "truncated" in str(error)
        found = "is truncated" if truncated else "cannot be opened as hdf5"
        mend = "Fetch it again (`download` resumes)." if truncated else "Expected a Robomimic low-dim hdf5 file."
        raise UserError(f"{path} {found} ({error}). {mend}") from error


def _text(value: Any) -> str:
    """An attribute or mask entry, which may be bytes, str or a number, as text."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _names_in(group: h5py.Group) -> list[str]:
    """A group's members; h5py gives names that are no text as bytes, and nothing we look for is called so."""
    return [name for name in group if isinstance(name, str)]
