"""`download`: fetch an official data set."""

from pathlib import Path
from typing import Literal


def download(
    task: Literal["lift", "can", "square", "transport", "tool_hang"],
    dataset_type: Literal["ph", "mh", "mg", "paired"],
    output: Path | None = None,
    url: str | None = None,
    version: Literal["v141", "v15"] = "v141",
) -> None:
    """Fetch one of Robomimic's low-dim data sets; an interrupted download resumes when the command is run again.

    Args:
        task: which task.
        dataset_type: ph: 200 demonstrations by one proficient human; mh: 300 by six humans of unequal skill; mg: by
            machines; paired: good and bad ones from the same start. Not every task has each.
        output: where to put the file (default: data/TASK_TYPE.hdf5, for v15 data/TASK_TYPE_v15.hdf5); one that is there
            and sound is kept.
        url: a mirror's address of the file.
        version: v141: recorded in robosuite 1.4, from the address in robomimic's registry; v15: in robosuite 1.5, from
            Hugging Face (a mirror: the environment variable HF_ENDPOINT).
    """
    from commands.first_words import MACHINES, say_train
    from common.errors import UserError
    from datamodules.download import fetch, official_url
    from datamodules.hdf5 import DatasetFile
    from datamodules.hub import fetch_from_hub, hub_filename
    from envs.installed import check_version
    from envs.tasks import TASKS

    known, source = task if task in TASKS else None, MACHINES if dataset_type == "mg" else None
    suffix = "_v15" if version == "v15" else ""
    output = output or Path("data") / f"{task}_{dataset_type}{suffix}.hdf5"
    if output.exists():
        try:
            with DatasetFile(output) as file:
                print(f"{output} is there already: {len(file.names())} demonstrations. Remove it to fetch it again.")
                say_train(known, output, source)
                return
        except UserError as error:
            print(f"{error}\nFetching it again.")
    if version == "v15" and url is None:
        fetch_from_hub(hub_filename(task, dataset_type), output)
    else:
        fetch(url or official_url(task, dataset_type), output)
    with DatasetFile(output) as file:
        print(f"wrote {output}: {len(file.names())} demonstrations, sha256 {file.sha256}")
        try:
            check_version(file.env_args or {})
        except UserError as error:
            print(f"It can be read and trained on without rollouts (--rollout.every_n_epochs 0): {error}")
    say_train(known, output, source)
