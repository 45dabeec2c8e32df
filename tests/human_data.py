"""Where the human demonstrations lie that tests use, beside the checkout; not part of the project."""

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def human(name: str) -> Path:
    """The file, or a skip of the test that asks for it."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    return path
