"""Every DSRL configuration file parses against the command, and an archive gives its settings back."""

import dataclasses
import json
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from commands.dsrl import dsrl
from dsrl.archive import config_from_dict
from dsrl.config import DSRLConfig

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("configs/dsrl_*.yaml"), *ROOT.glob("configs/debug/dsrl_*.yaml")])


def parser() -> ArgumentParser:
    built = ArgumentParser()
    built.add_argument("--config", action="config")
    built.add_function_arguments(dsrl)
    return built


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_configuration_parses(path: Path) -> None:
    values = parser().parse_args(["--config", str(path), "--bc_checkpoint", "x.safetensors"])
    assert values.action_magnitude > 0
    if path.stem.startswith("dsrl_") and path.parent.name == "configs":
        assert values.task == path.stem.split("_")[1].replace("quickstart", "lift")


def test_the_settings_inside_an_archive_come_back_as_they_were() -> None:
    config = DSRLConfig("lift", 1.5, 10, 1, 1, 1)
    assert config_from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_there_is_a_configuration_for_every_task() -> None:
    assert {"dsrl_lift", "dsrl_can", "dsrl_square", "dsrl_fast"} <= {path.stem for path in FILES}
