"""Every DSRL configuration file parses against the command, and an archive gives its settings back."""

import json
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from commands.dsrl import named_learner
from dsrl.config import DSRLConfig, add_settings, config_from_dict, parsed_settings
from dsrl.learners import LEARNERS

ROOT = Path(__file__).resolve().parent.parent
EVERY_KEY = ROOT / "configs/dsrl_every_key.yaml"
FILES = sorted({*ROOT.glob("configs/dsrl_*.yaml"), *ROOT.glob("configs/debug/dsrl_*.yaml")} - {EVERY_KEY})


def settings_in(path: Path) -> DSRLConfig:
    line = ["--config", str(path)]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--output")
    add_settings(parser, named_learner(line))
    return parsed_settings(parser, parser.parse_args(line))[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_configuration_parses_and_says_only_what_differs_from_the_defaults(path: Path) -> None:
    config = settings_in(path)
    default = DSRLConfig(learner=LEARNERS[config.learner.algorithm].config_type()).to_dict()
    if path.stem.startswith("dsrl_") and path.parent.name == "configs":
        assert config.task == path.stem.split("_")[1].replace("quickstart", "lift")
    given = yaml.safe_load(path.read_text())
    for group, values in given.items():
        if isinstance(values, dict):
            same = [name for name in values if values[name] == default[group][name] and name != "algorithm"]
            assert not same, f"{group}: {same}"
        elif group != "output":
            assert values != default[group], group


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_the_settings_inside_an_archive_come_back_as_they_were(algorithm: str) -> None:
    config = DSRLConfig("lift", 1.5, 10, 1, 1, 1, learner=LEARNERS[algorithm].config_type(hidden_sizes=[3]))
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_there_is_a_configuration_for_every_task() -> None:
    assert {"dsrl_lift", "dsrl_can", "dsrl_square", "dsrl_fast"} <= {path.stem for path in FILES}


def test_one_file_shows_every_key_with_its_default() -> None:
    assert yaml.safe_load(EVERY_KEY.read_text()) == DSRLConfig().to_dict()
    assert all("#" in line for line in EVERY_KEY.read_text().splitlines() if line and not line.endswith(":"))
