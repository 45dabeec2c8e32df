"""The worked examples of docs/extending.md: a network, a task, a logger, a data source. Learner: its own file."""

import dataclasses
import importlib
import json
import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from common.errors import UserError
from datamodules.inspection import survey
from datamodules.robomimic_datamodule import RobomimicDataModule
from envs.pool import EnvPool, EnvSpec
from envs.tasks import TASKS, default_env_args, task_of
from lightning_modules import DiffusionBC
from policies import load_policy
from tests.training_toy import ROOT, ForkServer, fit_line, write_toy_dataset

PAGE = ROOT / "docs/extending.md"
CUBE_HEIGHT = 1 + 9 + 2  # in a state of Lift: after time and the joints of arm and fingers


def block(title: str, language: str) -> str:
    """The first code block of a section."""
    section = re.split(rf"## Add an? {title}\n", PAGE.read_text())[1].split("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def module_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a section's code an importable module."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(title: str, name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(block(title, "python"))
        return importlib.import_module(name)

    return make


def test_the_network_trains_and_is_kept(module_of: Any, tmp_path: Path) -> None:
    network = module_of("network", "my_networks").ResidualNetwork
    settings = yaml.safe_load(block("network", "yaml"))["model"]["network"]
    assert settings["class_path"] == f"{network.__module__}.{network.__name__}"
    module = DiffusionBC({"state": 5}, 7, 4, network=partial(network, **settings["init_args"]))
    obs, actions = torch.randn(64, 5), torch.rand(64, 4, 7) * 2 - 1
    loader = DataLoader(TensorDataset(obs, actions), batch_size=32)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, **quiet).fit(module, loader)
    module.inference_policy.save(tmp_path / "policy.safetensors")
    policy = load_policy(tmp_path / "policy.safetensors")
    assert cast(Any, policy.network).first.out_features == 32
    assert policy.sample(obs).shape == (64, 4, 7)


def test_the_task_is_simulated_under_its_name(module_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from envs.robosuite_env import make_task

    stack = module_of("task", "stack_example").STACK
    monkeypatch.setitem(TASKS, "stack", stack)
    env = make_task("stack")
    try:
        assert task_of(env.env_args) == "stack"
        assert env.obs_dims["object"] == stack.object_dim
        first, other, again = (env.reset(seed=seed)[0] for seed in (1, 2, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert env.step(np.zeros(7))[1] == 0.0
    finally:
        env.close()


def test_an_environment_of_ones_own_is_played_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_args = default_env_args("lift") | {"env_name": "LiftHigh"}
    spec = EnvSpec(env_args, ("object",), pred_horizon=4, horizon=8)
    with pytest.raises(UserError, match="DIFFUSION_STEERING_ENVS"):
        EnvPool(spec, n_envs=1)
    # Lift ends where the cube is 4 cm above the table; this one asks for 10.
    (tmp_path / "my_envs.py").write_text(block("environment", "python"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DIFFUSION_STEERING_ENVS", "my_envs")
    assert [_success_of_a_cube_at(height, spec) for height in (0.0, 0.07, 0.12)] == [False, False, True]
    shipped = dataclasses.replace(spec, env_args=default_env_args("lift"))
    assert _success_of_a_cube_at(0.07, shipped)
    monkeypatch.setenv("DIFFUSION_STEERING_ENVS", "my_envs,no_such_envs")
    with pytest.raises(UserError, match=r"DIFFUSION_STEERING_ENVS no_such_envs: no module 'no_such_envs'"):
        EnvPool(spec, n_envs=1)


def _success_of_a_cube_at(height: float, spec: EnvSpec) -> bool:
    """Whether a chunk ends in success that begins with the cube ``height`` metres higher than a reset leaves it."""
    with EnvPool(spec, n_envs=1) as pool:
        pool.reset(0, seed=1)
        pool.wait()
        pool.call(0, "state")
        state = pool.wait()[0][1].value.copy()
        state[CUBE_HEIGHT] += height
        pool.reset_to(0, state, None)
        pool.wait()
        pool.step(0, np.zeros((4, 7)))
        return pool.wait()[0][1].is_success


def test_the_logger_gets_the_losses_of_fit(cli_server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "my_loggers.py").write_text(block("logger", "python"))
    settings = yaml.safe_load(block("logger", "yaml"))
    settings["trainer"]["logger"]["init_args"]["path"] = str(tmp_path / "log.jsonl")
    (tmp_path / "logger.yaml").write_text(yaml.safe_dump(settings))
    data = write_toy_dataset(tmp_path / "data.hdf5")
    line = [word for word in fit_line(tmp_path / "run", data) if not word.startswith("--trainer.logger")]
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    run = cli_server.start([*line, f"--config={tmp_path / 'logger.yaml'}"], before=path)
    assert run.wait() == 0, run.stderr
    entries = [json.loads(entry) for entry in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum("train/loss" in entry for entry in entries) == 3


def test_the_data_source_becomes_a_sound_data_set(module_of: Any, tmp_path: Path) -> None:
    script = module_of("data source", "from_npz")
    rng = np.random.default_rng(0)
    for i in range(4):
        episode = {
            "actions": rng.uniform(-1, 1, (12, 3)),
            "arm": rng.normal(size=(12, 2)),
            "ball": rng.normal(size=(12, 3)),
        }
        np.savez(tmp_path / f"{i}.npz", allow_pickle=False, **episode)
    script.convert(tmp_path, tmp_path / "mine.hdf5")
    assert survey(tmp_path / "mine.hdf5").problems == []
    data = RobomimicDataModule(str(tmp_path / "mine.hdf5"), obs_keys=script.KEYS)
    data.setup("fit")
    assert (data.obs_dims, data.action_dim) == ({"arm": 2, "ball": 3}, 3)
    assert len(data.train_chunks) == 3 * (12 - 4 + 1)
