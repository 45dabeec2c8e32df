"""The worked example of docs/extending.md: a learner is one file, one row of a table, one YAML."""

import importlib
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml

from dsrl.agent import load_steered_agent
from dsrl.config import DSRLConfig, config_from_dict
from dsrl.learners import LEARNERS
from dsrl.trainer import Trainer
from tests.dsrl_toy import ToyPolicy, ToyPool
from tests.test_dsrl_training import settings

PAGE = Path(__file__).resolve().parent.parent / "docs/extending.md"


def block(language: str) -> str:
    """The first code block of the section about learners."""
    section = PAGE.read_text().split("## Add a learner")[1]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DSRLConfig:
    (tmp_path / "shift_example.py").write_text(block("python"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(LEARNERS, "shift", importlib.import_module("shift_example").ShiftSAC)
    given, small = yaml.safe_load(block("yaml")), settings("prior", train_steps=40).to_dict()
    return config_from_dict({**small, "learner": {**small["learner"], **given["learner"]}})


def test_the_learner_of_the_documentation_trains_is_kept_and_goes_on(config: DSRLConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    Trainer(ToyPolicy(), cast(Any, ToyPool()), config, folder).run()
    agent = load_steered_agent(folder / "sac_last.zip", ToyPolicy())
    assert cast(Any, agent.networks.actor).max_shift == 1.5
    assert np.isfinite(agent.act(np.zeros((1, 3), np.float32), [])).all()
    config.train_steps = 80
    resumed = Trainer(ToyPolicy(), cast(Any, ToyPool()), config, folder, resume=True)
    assert resumed.env_steps >= 240
