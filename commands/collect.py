"""`collect`: make a data set in the simulator."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from envs.tasks import TaskName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from envs.messages import EnvSpec
    from rollouts.loop import Agent

    MakeAgent = Callable[[Mapping[str, int]], Agent]  # of the dimension of each observation key


def collect(
    task: TaskName,
    n_demos: int,
    output: Path,
    dataset: Path | None = None,
    filter_key: str | None = None,
    demos: str | None = None,
    style: Literal["proficient", "mixed"] | None = None,
    seed: int = 0,
    n_envs: int | None = None,
    overwrite: bool = False,
) -> None:
    """Make demonstrations in robosuite and write the successes in Robomimic's low-dim format.

    A scripted expert makes them, or, with --dataset, the demonstrations of a file are played again from fresh initial
    states: one of those whose objects lie most alike, bent to where the object is now.

    Args:
        task: which task.
        n_demos: how many successful episodes to keep.
        output: the hdf5 file to write.
        dataset: demonstrations to play again, whole ones; with few of them, this makes many.
        filter_key: of the dataset: those of mask/FILTER_KEY; all by default.
        demos: of the dataset: those of these numbers, such as 5,16,27 or 0-49.
        style: of the scripted expert. proficient, the default: varied like one good teleoperator; mixed: like three of
            unequal skill, with detours.
        seed: the same seed gives the same demonstrations at any n_envs.
        n_envs: simulations to run in parallel (default: eight per CPU, at most 32).
        overwrite: replace the output, if it is there.
    """
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress

    from commands.first_words import say_train
    from common.errors import UserError
    from common.files import check_new
    from datamodules.demonstrations import Demonstration, write_dataset
    from datamodules.hdf5 import DatasetFile
    from datamodules.splits import split_masks
    from envs.pool import EnvPool
    from experts.collection import ADAPTED_SEEDS, collect_episodes, demonstration_of
    from rollouts.loop import EpisodeResult

    if n_demos < 1:
        raise UserError(f"--n_demos is {n_demos}. Expected at least 1.")
    if seed < 0:
        raise UserError(f"--seed is {seed}. Expected 0 or more.")

    chosen = {"--filter_key": filter_key, "--demos": demos}
    given = [flag for flag, value in chosen.items() if value is not None]
    if dataset is None and given:
        raise UserError(f"{given[0]} chooses demonstrations of a --dataset, and there is none.")
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} both choose demonstrations: leave one of them out.")
    if dataset is not None and style is not None:
        raise UserError("--style is the scripted expert's, and --dataset takes its place: leave one of them out.")
    check_new(output, overwrite, dataset)
    if dataset is None:
        style = style or "proficient"
        operator, made_of = f"scripted expert, {style}", None
        spec, make_agent = _scripted(task, style)
        states = seed
    else:
        operator = f"adapted from {dataset.name}"
        with DatasetFile(dataset) as file:
            made_of = file.attributes.get("source")
        spec, make_agent = _adapted(task, dataset, filter_key, demos)
        states = ADAPTED_SEEDS + seed
    lengths: list[int] = []  # of the successes
    failures: list[int] = []  # their lengths

    def demonstrations() -> Iterator[Demonstration]:
        """Start simulating only once the output is known to be writable."""
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with EnvPool(spec, n_envs) as pool, Progress(*columns) as progress:
            said = escape(f"{task}, {operator}")  # of brackets in a file's name
            bar = progress.add_task(said, total=n_demos)
            played: list[bool] = []

            def show(result: EpisodeResult) -> None:
                played.append(result.success)
                share = f"{sum(played)} of {len(played)} succeed"  # the surplus too, which is not kept
                progress.update(bar, description=f"{said}, {share}", completed=min(sum(played), n_demos))

            for result in collect_episodes(make_agent(pool.obs_dims), pool, states, n_demos, show):
                (lengths if result.success else failures).append(result.length)
                if result.success:
                    yield demonstration_of(result, pool.obs_dims)

    origin = f"{operator}, seed {seed}" if made_of is None else f"{operator} ({made_of}), seed {seed}"
    write_dataset(output, demonstrations(), spec.env_args, split_masks(n_demos, seed), origin)
    tried = n_demos + len(failures)
    print(
        f"wrote {output}: {n_demos} demonstrations ({operator}), {sum(lengths)} transitions, mean length"
        f" {sum(lengths) / n_demos:.1f}; {n_demos} of {tried} episodes succeeded ({n_demos / tried:.1%}),"
        f" {sum(lengths) + sum(failures)} env steps in all"
    )
    whole = filter_key is None and demos is None
    say_train(task, output, origin, dataset if whole else None)


def _scripted(task: str, style: Literal["proficient", "mixed"]) -> "tuple[EnvSpec, MakeAgent]":
    from envs.messages import EnvSpec
    from envs.tasks import TASKS, default_env_args
    from experts.collection import RECORDED_KEYS, ExpertAgent, expert_class

    spec = EnvSpec(default_env_args(task), RECORDED_KEYS, pred_horizon=1, horizon=TASKS[task].horizon)
    return spec, partial(ExpertAgent, expert_class(task), style)


def _adapted(task: str, dataset: Path, filter_key: str | None, demos: str | None) -> "tuple[EnvSpec, MakeAgent]":
    from common.controllers import motion_units
    from common.errors import UserError
    from datamodules.conventions import check_sparse
    from datamodules.hdf5 import DatasetFile, warn_of_clipping
    from envs.messages import EnvSpec
    from envs.tasks import find_task, object_pose_begin, resolve_env_args, task_of
    from experts.adaptation import LONGER, OBSERVED, AdaptingAgent, Source
    from experts.collection import RECORDED_KEYS
    from experts.expert import METRES_PER_UNIT, RADIANS_PER_UNIT

    record = find_task(task)
    if record.yaw_period is None:
        raise UserError(
            f"demonstrations of {task} cannot be adapted: that takes a task of bringing one object somewhere."
        )
    with DatasetFile(dataset) as file:
        env_args = resolve_env_args(file.env_args, task)
        if task_of(env_args) != task:
            raise UserError(f"{dataset} is of {env_args['env_name']}, not of --task {task}.")
        if motion_units(env_args) != [METRES_PER_UNIT] * 3 + [RADIANS_PER_UNIT] * 3:
            raise UserError(
                f"{dataset}: expected actions that are motions of the hand, of 5 cm and 0.5 rad at most (Robomimic's "
                "OSC_POSE with control_delta: true)."
            )
        names = file.names(filter_key) if demos is None else file.numbered(demos)
        demonstrations = {name: file.read(name, OBSERVED, fields=("rewards",)) for name in names}
    warn_of_clipping(dataset, demonstrations.values())
    check_sparse(dataset, env_args, (each.rewards for each in demonstrations.values()))
    # Pieces have no rewards, and may succeed all the same.
    usable = {name: each for name, each in demonstrations.items() if not each.rewards.size or (each.rewards > 0).any()}
    if failed := len(demonstrations) - len(usable):
        named = f"{failed} of {len(demonstrations)} demonstrations"
        print(f"{dataset}: {named} fail (no reward is above 0), and are left out.")
    if not usable:
        raise UserError(f"{dataset}: none of these demonstrations succeeds, so there is nothing to play again.")
    sources = []
    for name, demonstration in usable.items():
        shapes = (demonstration.actions.shape[1], demonstration.obs["object"].shape[1])
        if shapes != (7, record.object_dim):
            raise UserError(
                f"{dataset}: {name} has actions of {shapes[0]} and an object of {shapes[1]} numbers. Expected 7 and "
                f"{record.object_dim}."
            )
        try:
            sources.append(Source.read(demonstration, object_pose_begin(record)))
        except ValueError as error:  # scipy's, of a quaternion without a direction
            raise UserError(f"{dataset}: {name}: {error}") from error
    spec = EnvSpec(env_args, RECORDED_KEYS, pred_horizon=1, horizon=max(map(len, usable.values())) + LONGER)
    return spec, partial(AdaptingAgent, sources, task)
