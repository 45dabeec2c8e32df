"""`inspect`: what a data set holds, and what is wrong with it."""

from pathlib import Path


def inspect(dataset: Path) -> None:
    """Print what a Robomimic low-dim file holds, and every problem found; the exit status is 2 if there is one.

    Args:
        dataset: the hdf5 file.
    """
    from commands.first_words import say_train
    from common.errors import UserError
    from datamodules.hdf5 import DatasetFile
    from datamodules.inspection import print_report, survey
    from envs.tasks import task_of

    report = survey(dataset)
    print_report(report)
    if report.problems:
        raise UserError(f"{dataset}: {len(report.problems)} problems, listed above.")
    with DatasetFile(dataset) as file:
        say_train(task_of(file.env_args) if file.env_args is not None else None, dataset)
