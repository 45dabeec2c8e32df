"""`download`: fetch an official data set."""

from pathlib import Path
from typing import Literal

from envs.tasks import TaskName


def download(
    task: TaskName,
    dataset_type: Literal["ph", "mh"],
    output: Path | None = None,
    url: str | None = None,
) -> None:
    """Fetch one of Robomimic's low-dim data sets; an interrupted download resumes when the command is run again.

    Args:
        task: which task.
        dataset_type: ph: 200 demonstrations by one proficient human; mh: 300 by six humans of unequal skill.
        output: where to put the file (default: data/TASK_TYPE.hdf5); one that is there and sound is kept.
        url: a mirror's address of the file (default: the address in robomimic's registry).
    """
    from commands.first_words import say_train
    from common.errors import UserError
    from datamodules.download import fetch, official_url
    from datamodules.hdf5 import DatasetFile

    output = output or Path("data") / f"{task}_{dataset_type}.hdf5"
    url = url or official_url(task, dataset_type)
    if output.exists():
        try:
            with DatasetFile(output) as file:
                print(f"{output} is there already: {len(file.names())} demonstrations. Remove it to fetch it again.")
                say_train(task, output)
                return
        except UserError as error:
            print(f"{error}\nFetching it again.")
    fetch(url, output)
    with DatasetFile(output) as file:
        print(f"wrote {output}: {len(file.names())} demonstrations, sha256 {file.sha256}")
    say_train(task, output)
