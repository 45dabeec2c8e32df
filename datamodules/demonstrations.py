"""A demonstration, and writing a file of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from common.files import atomic_path


@dataclass(frozen=True)
class Demonstration:
    """One episode of T transitions; what a file leaves out (it need only have actions and obs) is empty here.

    ``states[t]`` and ``obs[key][t]`` belong to the moment before ``actions[t]``; ``next_obs``, ``rewards`` and
    ``dones`` to the one after it.
    """

    actions: np.ndarray  # (T, A), the environment's units: motions in [-1, 1], or absolute poses
    obs: dict[str, np.ndarray]  # key -> (T, d), raw units
    states: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (T, S), flattened simulator states
    rewards: np.ndarray = field(default_factory=lambda: np.empty(0))  # (T,)
    # (T,), 1 where the task is solved or, in files of robomimic's extraction, the trajectory ends.
    dones: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    next_obs: dict[str, np.ndarray] = field(default_factory=dict)  # key -> (T, d)
    model_file: str = ""  # the simulator model's XML
    n_clipped: int = 0  # values of the file's actions that lay outside [-1, 1]

    def __len__(self) -> int:
        return len(self.actions)


def by_key(observations: np.ndarray, obs_dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Flat observations (T, obs_dim) as a demonstration has them; ``obs_dims`` in the order of concatenation."""
    bounds = np.cumsum(list(obs_dims.values()))[:-1]
    return dict(zip(obs_dims, np.split(observations, bounds, axis=1), strict=True))


def write_dataset(
    path: str | Path,
    demonstrations: Iterable[Demonstration],
    env_args: Mapping[str, Any],
    masks: Mapping[str, Sequence[str]],
    source: str | None = None,
) -> None:
    """Write demonstrations as ``demo_0``, ``demo_1``, ... in robomimic's layout; the file appears whole or not at all.

    Args:
        path: where to.
        demonstrations: in order; they may be produced while writing.
        env_args: how to rebuild the environment, as robomimic's ``EnvBase.serialize``.
        masks: filter key -> names of demonstrations.
        source: where the data comes from, in words; an attribute beyond robomimic's, which its reader ignores.

    Raises:
        UserError: the path cannot be written.
    """
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        data = file.create_group("data")
        total = 0
        for index, demonstration in enumerate(demonstrations):
            group = data.create_group(f"demo_{index}")
            for key in ("actions", "states", "rewards", "dones"):
                if len(values := getattr(demonstration, key)):
                    group.create_dataset(key, data=values)
            for part in ("obs", "next_obs"):
                for key, values in getattr(demonstration, part).items():
                    group.create_dataset(f"{part}/{key}", data=values)
            group.attrs["num_samples"] = len(demonstration)
            group.attrs["model_file"] = demonstration.model_file
            total += len(demonstration)
        data.attrs["total"] = total
        data.attrs["env_args"] = json.dumps(env_args, indent=4)
        if source is not None:
            data.attrs["source"] = source
        for key, names in masks.items():
            file.create_dataset(f"mask/{key}", data=np.array(names, dtype="S"))
