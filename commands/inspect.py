"""`inspect`: what a data set holds, and what is wrong with it."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FRAME = 128  # pixels of a picture in the contact sheet


def inspect(dataset: Path, output: Path | None = None, frames: bool = False) -> None:
    """Print what a Robomimic low-dim file holds, and every problem found; the exit status is 2 if there is one.

    Args:
        dataset: the hdf5 file.
        output: page to write (.html): values with histograms, lengths, the hand's ways, every problem.
        frames: add every demonstration's first frame to the page; needs a GL library.
    """
    from commands.first_words import say_train
    from common.errors import UserError
    from common.files import check_writable
    from datamodules.hdf5 import DatasetFile
    from datamodules.inspection import print_report, survey
    from envs.tasks import task_of

    if output is not None:
        if output.suffix not in (".html", ".htm"):
            raise UserError(f"--output is {output}: expected a name that ends in .html")
        check_writable(output)
    elif frames:
        raise UserError("--frames adds pictures to the page: name it by --output page.html")
    report = survey(dataset)
    print_report(report)
    if output is not None:
        from commands.report import say_written
        from reports.dataset_page import write_dataset_page

        write_dataset_page(dataset, report, output, _first_frames(dataset) if frames else {})
        say_written(output)
    if report.problems:
        raise UserError(f"{dataset}: {len(report.problems)} problems, listed above.")
    with DatasetFile(dataset) as file:
        task = task_of(file.env_args) if file.env_args is not None else None
        say_train(task, dataset, file.attributes.get("source"))


def _first_frames(dataset: Path) -> "dict[str, np.ndarray]":
    from datamodules.hdf5 import DatasetFile
    from envs.messages import Capture, EnvSpec
    from envs.pool import EnvPool
    from envs.tasks import resolve_env_args

    with DatasetFile(dataset) as file:
        env_args = resolve_env_args(file.env_args, None)
        loaded = {name: file.examine(name, (), fields=("states",))[0] for name in file.names()}
    with EnvPool(EnvSpec(env_args, render_size=(FRAME, FRAME)), n_envs=1) as pool:
        frames = {}
        for name, demonstration in loaded.items():
            if demonstration.states.size:
                model = demonstration.model_file or None
                pool.reset_to(0, demonstration.states[0], model, Capture(frames_every=1))
                frames[name] = (pool.drain()[0].frames or [])[0]
        return frames
