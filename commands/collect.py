"""`collect`: make a data set with a scripted expert."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from envs.tasks import TaskName


def collect(
    task: TaskName,
    n_demos: int,
    output: Path,
    style: Literal["proficient", "mixed"] = "proficient",
    seed: int = 0,
    n_envs: int | None = None,
) -> None:
    """Drive a scripted expert through robosuite and write its successes in Robomimic's low-dim format.

    Args:
        task: which task.
        n_demos: how many successful episodes to keep.
        output: the hdf5 file to write.
        style: proficient: varied like one good teleoperator; mixed: like three of unequal skill, with detours.
        seed: the same seed gives the same demonstrations at any n_envs.
        n_envs: simulations to run in parallel (default: eight per CPU, at most 32).
    """
    from rich.progress import MofNCompleteColumn, Progress

    from commands.first_words import say_train
    from common.errors import UserError
    from datamodules.demonstrations import Demonstration, write_dataset
    from datamodules.splits import split_masks
    from envs.messages import EnvSpec
    from envs.pool import EnvPool
    from envs.tasks import TASKS, default_env_args
    from experts.collection import RECORDED_KEYS, collect_successes, expert_class
    from rollouts.loop import EpisodeResult

    if n_demos < 1:
        raise UserError(f"--n_demos is {n_demos}. Expected at least 1.")
    if seed < 0:
        raise UserError(f"--seed is {seed}. Expected 0 or more.")

    expert_class(task)  # or there is none to drive
    lengths: list[int] = []  # of the successes
    failures = 0
    spec = EnvSpec(default_env_args(task), RECORDED_KEYS, pred_horizon=1, horizon=TASKS[task].horizon)

    def demonstrations() -> Iterator[Demonstration]:
        """Start simulating only once the output is known to be writable."""
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with EnvPool(spec, n_envs) as pool, Progress(*columns) as progress:
            bar = progress.add_task(f"{task}, {style}", total=n_demos)

            def count(result: EpisodeResult) -> None:
                nonlocal failures
                if result.success:
                    lengths.append(result.length)
                    progress.advance(bar)
                else:
                    failures += 1

            yield from collect_successes(pool, task, style, seed, n_demos, count)

    source = f"scripted expert, {style}, seed {seed}"
    write_dataset(output, demonstrations(), spec.env_args, split_masks(n_demos, seed), source)
    tried = n_demos + failures
    print(
        f"wrote {output}: {n_demos} scripted demonstrations, {sum(lengths)} transitions, mean length"
        f" {sum(lengths) / n_demos:.1f}; the expert succeeded in {n_demos} of {tried} episodes ({n_demos / tried:.1%})"
    )
    say_train(task, output)
