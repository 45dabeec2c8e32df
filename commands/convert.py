"""`convert`: a raw recording as a low-dim data set."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from commands.first_words import say_train
from common.errors import UserError
from common.files import check_new, check_writable
from datamodules.demonstrations import Demonstration, by_key, write_dataset
from datamodules.hdf5 import DatasetFile, warn_of_clipping
from datamodules.raw import read_raw, recorded_env_args
from datamodules.splits import split_masks
from envs.installed import check_version
from envs.messages import EnvSpec, Retraced
from envs.pool import EnvPool, available_cpus
from envs.tasks import TaskName, default_env_args, resolve_env_args, task_of
from experts.collection import RECORDED_KEYS


def convert(
    input: Path,
    output: Path,
    task: TaskName | None = None,
    cut_at_success: bool = False,
    n_envs: int | None = None,
    overwrite: bool = False,
) -> None:
    """Make low-dim observations, sparse rewards, dones and masks from a recording's simulator states.

    Takes the files of robosuite's collect_human_demonstrations, Robomimic's raw ones, and any data set with states: one
    with shaped rewards, say. Each recording's actions are also played again: those that do not lead through its states
    are reported.

    Args:
        input: the hdf5 file with the recordings.
        output: the hdf5 file to write.
        task: needed where the file does not say which environment it was recorded in.
        cut_at_success: end each demonstration with its first success.
        n_envs: simulations to run in parallel (default: one per CPU).
        overwrite: replace the output, if it is there.
    """
    from rich.progress import MofNCompleteColumn, Progress

    check_new(output, overwrite, input)
    check_writable(output)
    with DatasetFile(input) as file:
        names = file.names()
        recordings = [read_raw(file, name) for name in names]
        env_args = _env_args(recorded_env_args(file), task)
        source = file.attributes.get("source", f"converted from {input.name}")
    warn_of_clipping(input, recordings)
    spec = EnvSpec(env_args, RECORDED_KEYS, pred_horizon=1)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with EnvPool(spec, n_envs or min(available_cpus(), len(names))) as pool, Progress(*columns) as progress:
        bar = progress.add_task(input.name, total=len(names))
        traces: dict[int, Retraced] = {}
        for index, trace in _retraced(pool, recordings):
            traces[index] = trace
            progress.advance(bar)
        obs_dims = pool.obs_dims
    demonstrations = [
        _demonstration(recording, traces[index], obs_dims, cut_at_success) for index, recording in enumerate(recordings)
    ]
    write_dataset(output, demonstrations, env_args, split_masks(len(names), seed=0), source)
    _report(names, [traces[index] for index in range(len(names))])
    print(f"wrote {output}: {len(names)} demonstrations, {sum(map(len, demonstrations))} transitions")
    say_train(task_of(env_args), output, source)


def _env_args(recorded: dict[str, Any] | None, task: str | None) -> dict[str, Any]:
    """What the new file says of its environment: the recording's robots and controller, rewards sparse."""
    stated = resolve_env_args(recorded, task)
    check_version(stated)
    name = task_of(stated)
    if task is not None and name != task:
        raise UserError(f"--task is {task}, but the recordings are of {stated['env_name']}. Name the task that fits.")
    default = default_env_args(name) if name is not None else {"env_name": stated["env_name"], "env_kwargs": {}}
    kwargs = {key: value for key, value in stated.get("env_kwargs", {}).items() if key != "env_name"}
    return {**stated, **default, "env_kwargs": {**default["env_kwargs"], **kwargs, "reward_shaping": False}}


def _retraced(pool: EnvPool, recordings: Sequence[Demonstration]) -> Iterator[tuple[int, Retraced]]:
    """Each recording's number and trace, as they come."""
    waiting = iter(enumerate(recordings))
    running: dict[int, int] = {}  # environment -> recording

    def begin(i: int) -> None:
        index, recording = next(waiting, (None, None))
        if index is not None and recording is not None:
            running[i] = index
            pool.call(i, "retrace", recording.states, recording.actions, recording.model_file or None)

    for i in range(pool.n_envs):
        begin(i)
    while running:
        for i, reply in pool.wait():
            yield running.pop(i), reply.value
            begin(i)


def _demonstration(
    recording: Demonstration, trace: Retraced, obs_dims: Mapping[str, int], cut_at_success: bool
) -> Demonstration:
    solved = np.flatnonzero(trace.successes)
    length = int(solved[0]) + 1 if cut_at_success and len(solved) else len(recording)
    successes = trace.successes[:length]
    return Demonstration(
        actions=recording.actions[:length],
        states=recording.states[:length],
        obs=by_key(trace.observations[:length], obs_dims),
        next_obs=by_key(trace.observations[1 : length + 1], obs_dims),
        rewards=successes.astype(np.float64),
        dones=successes.astype(np.int64),
        model_file=recording.model_file,
    )


def _report(names: Sequence[str], traces: Sequence[Retraced]) -> None:
    for name, trace in zip(names, traces, strict=True):
        if trace.departed_at is not None:
            print(
                f"{name}: its actions, played again, leave the recorded states at step {trace.departed_at} of"
                f" {len(trace.successes)}, by up to {trace.departure:.2g} m or rad"
            )
    solved = sum(bool(trace.successes.any()) for trace in traces)
    replayed = sum(trace.departed_at is None for trace in traces)
    print(f"{solved} of {len(names)} succeed; the replay of {replayed} gives back the recorded states")
