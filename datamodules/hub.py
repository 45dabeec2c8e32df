"""Robomimic's v1.5 files on Hugging Face."""

import shutil
from pathlib import Path

from common.errors import UserError
from common.files import atomic_path, check_writable, sha256_of
from datamodules.download import check_dataset, registered_kind

REPOSITORY = "robomimic/robomimic_datasets"


def hub_filename(task: str, dataset_type: str) -> str:
    """The file's path in the repository.

    Raises:
        UserError: robomimic registers no such data set.
    """
    return f"v1.5/{task}/{dataset_type}/{registered_kind(task, dataset_type)}_v15.hdf5"


def fetch_from_hub(filename: str, output: Path) -> None:
    """Download a file of the repository to ``output``, by way of Hugging Face's own cache.

    An interrupted download goes on when it is run again. The environment variable HF_ENDPOINT names a mirror, HF_HOME
    another place for the cache. The file appears whole or not at all.

    Raises:
        UserError: it cannot be fetched, is not what the repository says, is no Robomimic file, or cannot be written.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    check_writable(output)
    where = f"{filename} of {REPOSITORY} on Hugging Face"
    try:
        cached = Path(hf_hub_download(REPOSITORY, filename, repo_type="dataset"))
    except (OSError, HTTPError) as error:  # no such file, no route, a connection lost for good, a full disk
        raise UserError(
            f"cannot fetch {where}: {error} Run the same command again to resume, or name a mirror: of Hugging Face by"
            " the environment variable HF_ENDPOINT, of the file by --url."
        ) from error
    try:
        _check_sha256(where, cached)
        check_dataset(where, cached)
    except UserError:
        cached.resolve().unlink()  # else the next attempt would find it
        raise
    with atomic_path(output) as partial:
        shutil.copyfile(cached, partial)


def _check_sha256(where: str, cached: Path) -> None:
    """Compare with the repository's digest, by which the cache names its large files."""
    stated = cached.resolve().name
    if len(stated) == 64 and sha256_of(cached) != stated:
        raise UserError(f"{where} arrived damaged: its SHA-256 is not {stated}. Run the same command again.")
