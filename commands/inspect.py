"""`inspect`: what a data set holds, and what is wrong with it."""

from pathlib import Path


def inspect(dataset: Path) -> None:
    """Print what a Robomimic low-dim file holds, and every problem found; the exit status is 2 if there is one.

    Args:
        dataset: the hdf5 file.
    """
    from common.errors import UserError
    from datamodules.inspection import print_report, survey

    report = survey(dataset)
    print_report(report)
    if report.problems:
        raise UserError(f"{dataset}: {len(report.problems)} problems, listed above.")
