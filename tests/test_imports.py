"""The floors of the house hold, and the documentation's picture of them is that of the code."""

import importlib.util
import sys
from configparser import ConfigParser
from types import ModuleType

import pytest

from tests.training_toy import ROOT


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("imports_page", ROOT / "docs/imports.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["imports_page"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_package_imports_one_on_its_own_floor_or_above(page: ModuleType) -> None:
    assert page.upward() == []


def test_an_upward_import_would_be_found(page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "FLOORS", page.FLOORS[::-1])
    assert "commands imports envs" in page.upward()


def test_every_package_that_is_installed_has_its_floor(page: ModuleType) -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    installed = {name.partition(".")[0] for name in setup["options"]["packages"].split()}
    assert {*installed, "cli"} == set(page.packages())


def test_the_picture_is_of_this_code(page: ModuleType) -> None:
    assert page.PICTURE.read_text() == page.picture(), "make it anew: python docs/imports.py"
