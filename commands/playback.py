"""`playback`: demonstrations as videos."""

from pathlib import Path

import numpy as np

from commands.record import check_size
from common.errors import UserError
from datamodules.demonstrations import Demonstration
from datamodules.hdf5 import DatasetFile
from envs.messages import Retraced
from envs.pool import Capture, EnvPool, EnvSpec
from envs.tasks import DEFAULT_OBS_KEYS, TASKS, resolve_env_args, task_of
from rollouts.recording import Take, write_video


def playback(
    dataset: Path, output: Path, demos: str = "0", actions: bool = False, size: int = 512, task: str | None = None
) -> None:
    """Render demonstrations from their simulator states: demo_0.mp4, demo_3.mp4, ...

    Args:
        dataset: the hdf5 file.
        output: folder for the videos.
        demos: numbers of demonstrations, such as 0,3,7-9.
        actions: beside them, what becomes of their actions when played open loop from the same initial state; prints
            where the two part.
        size: height and width of a picture in pixels.
        task: lift, can, square, tool_hang or transport; only for a file without env_args.
    """
    check_size(size)
    with DatasetFile(dataset) as file:
        names = file.numbered(demos)
        env_args = resolve_env_args(file.env_args, task)
        demonstrations = {name: file.read(name, obs_keys=(), fields=("states",)) for name in names}
    stateless = [name for name, demonstration in demonstrations.items() if not demonstration.states.size]
    if stateless:
        raise UserError(f"{dataset}: {', '.join(stateless)} has no states, from which to render")
    known = task_of(env_args)
    title = known or env_args["env_name"]
    keys = DEFAULT_OBS_KEYS if known is None else TASKS[known].obs_keys
    longest = max(len(demonstration) for demonstration in demonstrations.values())
    spec = EnvSpec(env_args, keys, 1, horizon=longest + 1, render_size=(size, size))
    with EnvPool(spec, n_envs=1) as pool:
        for name, demonstration in demonstrations.items():
            takes = [Take(f"{title}, {name}", _film_states(pool, demonstration), "END", None)]
            if actions:
                takes.append(_film_actions(pool, demonstration))
            path = output / f"{name}.mp4"
            write_video(path, takes)
            print(f"wrote {path}: {len(demonstration)} steps{_parting(pool, demonstration) if actions else ''}")


def _film_states(pool: EnvPool, demonstration: Demonstration) -> list[np.ndarray]:
    frames = []
    for state in demonstration.states:
        pool.reset_to(0, state, demonstration.model_file or None, Capture(frames_every=1))
        frames += pool.drain()[0].frames or []
    return frames


def _film_actions(pool: EnvPool, demonstration: Demonstration) -> Take:
    """The actions from the first state on, until the task is solved or they are at their end."""
    capture = Capture(frames_every=1)
    pool.reset_to(0, demonstration.states[0], demonstration.model_file or None, capture)
    replies = [pool.drain()[0]]
    for action in demonstration.actions:
        pool.step(0, action[None], capture)
        replies.append(pool.drain()[0])
        if replies[-1].is_success:
            break
    frames = [frame for reply in replies for frame in reply.frames or ()]
    success = replies[-1].is_success
    return Take("its actions, open loop", frames, "SUCCESS" if success else "FAILURE", success)


def _parting(pool: EnvPool, demonstration: Demonstration) -> str:
    pool.call(0, "retrace", demonstration.states, demonstration.actions, demonstration.model_file or None)
    traced: Retraced = pool.drain()[0].value
    if traced.departed_at is None:
        return f"; the replay stays within {1000 * traced.departure:.2g} mm or mrad"
    return f"; the replay parts after step {traced.departed_at}, by up to {traced.departure:.2g} m or rad"
