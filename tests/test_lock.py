"""`requirements.lock`, which `make setup` installs, is the resolution of `setup.cfg` as it stands."""

import configparser
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.training_toy import ROOT

PYTHONS = ("3.11.7", "3.12.1")


def declared() -> list[Requirement]:
    """What setup.cfg asks for, the extras that `make setup` installs included."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    texts = "\n".join([config["options"]["install_requires"], extras["dev"], extras["setup"]])
    return [Requirement(line) for line in texts.splitlines() if line and not line.startswith("#")]


def locked(python: str) -> dict[str, str]:
    """Name to version of what the lock installs on Linux for one Python."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python, "sys_platform": "linux"}
    pins = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(pin.name): re.sub("^==", "", str(pin.specifier))
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(environment)
    }


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_every_requirement(python: str) -> None:
    pins = locked(python)
    unmet = [
        str(need) for need in declared() if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"))
    ]
    assert not unmet, f"make lock: requirements.lock does not satisfy {unmet}"


def test_the_lock_names_no_place_to_fetch_from() -> None:
    assert not re.search(r"://|--(index|extra-index|find-links)| @ ", (ROOT / "requirements.lock").read_text())
