"""A run's complete state inside ``sac_last.zip``: written whole or not at all, read without unpickling."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from common.errors import UserError
from dsrl.archive import (
    BUFFER,
    RUN_STATE,
    TENSORS,
    Steering,
    check_fits,
    pack_arrays,
    pack_tensors,
    read_member,
    read_parameters,
    read_steering,
    unpack_arrays,
    unpack_tensors,
    write_archive,
)
from dsrl.config import DSRLConfig

if TYPE_CHECKING:
    from dsrl.metrics import Row
    from dsrl.trainer import Trainer

# A resumed run may be made longer, or report on more episodes; everything else would make it another run.
# The demonstrations' file may lie elsewhere: its content is compared.
MAY_CHANGE = ("train_steps", "evaluation.report_episodes", "demonstrations.path")


def save_run_state(trainer: Trainer, path: Path, steering: Steering) -> None:
    """Write weights, optimisers, coefficient, buffer, counters, metrics and generators to one archive."""
    learner = trainer.learner
    values = {
        "env_steps": trainer.env_steps,
        "episodes": trainer.episodes,
        "episodes_begun": trainer.chunks.episodes_begun - trainer.pool.n_envs,
        "n_updates": learner._n_updates,
        "warm": trainer.warm,
        "clipped": trainer.clipped,
        "best": list(trainer.best),
        "seconds": trainer.seconds,
        "rows": trainer.metrics.rows,
        "replay_rng": learner.replay_buffer.rng.bit_generator.state,
        "trainer_rng": trainer.rng.bit_generator.state,
        "demonstrations_sha256": trainer.demonstrations_sha256,
    }
    tensors: dict[str, Any] = {"generator": learner.generator.get_state()}
    if trainer.config.learner.algorithm == "na":
        tensors["noise_critic.optimizer"] = learner.policy.noise_critic.optimizer.state_dict()
    members = {
        RUN_STATE: json.dumps(values).encode(),
        BUFFER: pack_arrays(learner.replay_buffer.arrays()),
        TENSORS: pack_tensors(tensors),
    }
    write_archive(path, learner, steering, members)


def load_run_state(trainer: Trainer, path: Path) -> list[Row]:
    """Put ``trainer`` where ``save_run_state`` left it; the metrics rows so far.

    Raises:
        UserError: no state, a damaged one, one of other settings, of another base policy or of other demonstrations.
    """
    if not path.is_file():
        raise UserError(f"--resume: {path} does not exist. Start the run without --resume, or name its --output.")
    steering = read_steering(path)
    check_fits(steering, trainer.policy, path)
    _check_same_run(steering.config, trainer.config, path)
    values = json.loads(read_member(path, RUN_STATE))
    # A state of an earlier version does not say.
    if values.get("demonstrations_sha256", trainer.demonstrations_sha256) != trainer.demonstrations_sha256:
        raise UserError(
            f"--resume: {path} was trained with other demonstrations than --demonstrations.path "
            f"{trainer.config.demonstrations.path} holds now. Give the same file."
        )
    learner = trainer.learner
    parameters = read_parameters(path)
    variables = parameters.pop("variables")
    learner.set_parameters(parameters, exact_match=True, device=learner.device)
    if learner.log_ent_coef is not None:
        with torch.no_grad():
            learner.log_ent_coef.copy_(variables["log_ent_coef"])
    tensors = unpack_tensors(read_member(path, TENSORS), path)
    try:
        learner.generator.set_state(tensors["generator"])
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"--resume: {path} was not written on a {learner.device.type}: give the --device of the run so far."
        ) from error
    if "noise_critic.optimizer" in tensors:
        learner.policy.noise_critic.optimizer.load_state_dict(tensors["noise_critic.optimizer"])
    learner.replay_buffer.restore(unpack_arrays(read_member(path, BUFFER)))
    learner.replay_buffer.rng.bit_generator.state = values["replay_rng"]
    trainer.rng.bit_generator.state = values["trainer_rng"]
    learner._n_updates = values["n_updates"]
    learner.num_timesteps = trainer.env_steps = values["env_steps"]
    trainer.episodes, trainer.warm, trainer.clipped = values["episodes"], values["warm"], values["clipped"]
    trainer.chunks.episodes_begun = values["episodes_begun"]
    trainer.best = (values["best"][0], values["best"][1])
    trainer.seconds = values["seconds"]
    return values["rows"]


def _check_same_run(stored: DSRLConfig, given: DSRLConfig, path: Path) -> None:
    before, now = _flat(dataclasses.asdict(stored)), _flat(dataclasses.asdict(given))
    changed = [key for key in now if now[key] != before.get(key) and key not in MAY_CHANGE]
    if changed:
        listed = ", ".join(f"{key} {before.get(key)!r} -> {now[key]!r}" for key in changed)
        raise UserError(f"--resume: {path} was trained with other settings: {listed}. Give the same ones.")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
