"""The run's archives: normal SB3 zip files that carry two members beside SB3's own.

``steering.json`` says what the actor was trained with and on, so that the networks can be rebuilt without unpickling
anything. ``run_state.pt``, in ``sac_last.zip`` alone, is everything else that training goes on from; it lies in the
same file as the weights, so that a state is there whole or not at all. SB3's own ``SAC.load`` reads both archives and
ignores these members.
"""

import io
import json
import pickle
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.save_util import load_from_zip_file

from common.errors import UserError
from common.files import atomic_path
from dsrl.config import DSRLConfig, config_from_dict
from dsrl.learners import SteeringSAC
from dsrl.networks import SteeringPolicy
from policies.storage import fingerprint

# In the folder of a run: the actor that evaluated best, and the last one with the run's state.
BEST, LAST = "sac_best.zip", "sac_last.zip"
FORMAT_VERSION = 3
STEERING = "steering.json"
# Not ".pth": SB3 takes every member of that name for its own.
RUN_STATE = "run_state.pt"
# Settings of earlier formats that are gone; none changes what a trained actor plays.
GONE_SINCE_2 = {"evaluation": ("constant_episodes",)}
GONE = {
    **GONE_SINCE_2,
    "learner": ("noise_correlation", "distill_steps"),
    "warm_start": ("noise_correlations",),
    "demonstrations": ("first",),
}
# Settings that format 1 had for every learner: the learner that has them -> their names.
OWN = {"prior": ("prior_scale", "kl_target", "kl_open_steps"), "sac": ("target_entropy",), "na": ("target_entropy",)}


@dataclass
class Steering:
    """``steering.json``: what an actor was trained with and on."""

    config: DSRLConfig
    base_fingerprint: str
    base_task: str | None
    obs_dims: dict[str, int]
    env_steps: int
    deterministic_is_better: bool

    def load_networks(self, networks: SteeringPolicy, path: str | Path) -> None:
        """Fill ``networks`` with the archive's weights."""
        try:
            networks.load_state_dict(read_parameters(path)["policy"])
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: the weights do not fit its own {STEERING}. {error}") from error


def write_archive(
    path: str | Path, learner: SteeringSAC, steering: Steering, state: dict[str, Any] | None = None
) -> None:
    """Write an SB3 archive with ``steering.json`` and, if given, a run's state, atomically."""
    with atomic_path(path) as partial:
        with partial.open("wb") as file:
            learner.save(file)
        with zipfile.ZipFile(partial, "a") as archive:
            values = {"format_version": FORMAT_VERSION, **asdict(steering), "config": steering.config.to_dict()}
            archive.writestr(STEERING, json.dumps(values, indent=1))
            if state is not None:
                stream = io.BytesIO()
                torch.save(state, stream)
                archive.writestr(RUN_STATE, stream.getvalue())


def read_steering(path: str | Path) -> Steering:
    """The description inside an archive, of this version or an earlier one.

    Raises:
        UserError: missing file, not a zip, not written by this project, or damaged.
    """
    content = _read_member(path, STEERING)
    if content is None:
        raise UserError(f"{path} has no {STEERING}: it was not written by `dsrl` of this project.")
    try:
        values = json.loads(content)
        version = values.pop("format_version", None)
        if version not in (1, 2, FORMAT_VERSION):
            raise UserError(
                f"{path} has steering format {version!r}; this version reads 1 to {FORMAT_VERSION}. Train again."
            )
        config = values["config"]
        if version == 1:
            config = _from_format_1(config)
        elif version == 2:
            config = _without(config, GONE_SINCE_2)
        return Steering(**{**values, "config": config_from_dict(config)})
    except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} holds a damaged {STEERING}: {error}") from error


def read_run_state(path: str | Path) -> dict[str, Any]:
    """What ``write_archive`` was given as a run's state.

    Raises:
        UserError: there is none, or a damaged one.
    """
    content = _read_member(path, RUN_STATE)
    if content is None:
        raise UserError(
            f"--resume: {path} holds no state that a run can go on from: an earlier version wrote it, or it is a copy "
            "of sac_best.zip. Its actor can still be judged (`evaluate --sac`); to train on, begin a new run."
        )
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} holds a damaged {RUN_STATE}: {_first_line(error)}") from error


def check_fits(steering: Steering, policy: Any, path: str | Path) -> None:
    """Refuse an actor that was trained on another policy than ``policy``."""
    spec = policy.spec
    if steering.base_task != spec.task:
        raise UserError(f"{path} steers a policy of task {steering.base_task!r}, the checkpoint is of {spec.task!r}.")
    if steering.obs_dims != dict(spec.obs_dims):
        raise UserError(f"{path} was trained on observations {steering.obs_dims}, the checkpoint has {spec.obs_dims}.")
    if steering.base_fingerprint != fingerprint(policy):
        raise UserError(
            f"{path} steers another policy: the noise it chooses means nothing to this checkpoint. "
            "Pass the checkpoint that was given to `dsrl --bc_checkpoint`."
        )


def read_parameters(path: str | Path) -> dict[str, Any]:
    """SB3's state dicts by name, and ``variables``: loaded with ``weights_only``, without the pickled ``data``."""
    try:
        _, parameters, variables = load_from_zip_file(str(path), load_data=False, device="cpu")
    except (ValueError, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise UserError(f"{path} is refused: damaged, or holding more than weights. {_first_line(error)}") from error
    return {**parameters, "variables": variables or {}}


def _read_member(path: str | Path, name: str) -> bytes | None:
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise UserError(f"{path} {what}: pass the sac_best.zip that `dsrl` wrote.")
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name) if name in archive.namelist() else None
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is not a readable zip archive: {error}") from error


def _from_format_1(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of format 1, in which every learner had the options of all."""
    own = OWN[config["learner"]["algorithm"]]
    of_others = {name for names in OWN.values() for name in names} - set(own)
    return _without(config, {**GONE, "learner": {*GONE["learner"], *of_others}})


def _without(config: dict[str, Any], dropped: Mapping[str, Collection[str]]) -> dict[str, Any]:
    kept = dict(config)
    for group, names in dropped.items():
        kept[group] = {name: value for name, value in config[group].items() if name not in names}
    return kept


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
