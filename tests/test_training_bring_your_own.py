"""Bring your own: another robosuite task and robot, other observations, another network, several files, one run."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from commands.simulation import load_checkpoint
from common.errors import UserError
from envs.pool import EnvPool, EnvSpec
from envs.rendering import choose_gl
from envs.tasks import default_env_args
from policies import NetworkConfig, load_policy
from policies.networks import MLPNoiseNetwork, NoiseNetwork
from rollouts.agents import DiffusionAgent
from rollouts.loop import run_episodes
from tests.training_toy import ACTION_DIM, ForkServer, fit_line, write_toy_dataset

# Stack has no short name here, and the arm is not Robomimic's.
STACK = {
    "env_name": "Stack",
    "env_version": "1.4.1",
    "type": 1,
    "env_kwargs": {**default_env_args("lift")["env_kwargs"], "robots": ["Kinova3"]},
}
STACK_DIMS = {"robot0_eef_pos": 3, "robot0_joint_pos": 7, "cubeA_pos": 3, "cubeB_pos": 3}


class ResidualNetwork(NoiseNetwork):
    """A network of one's own: residual blocks with dropout, timestep as a learned embedding."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        pred_horizon: int,
        num_train_timesteps: int = 100,
        width: int = 16,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.time = nn.Embedding(num_train_timesteps, width)
        self.first = nn.Linear(pred_horizon * action_dim + obs_dim, width)
        self.block = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout))
        self.last = nn.Linear(width, pred_horizon * action_dim)

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        features = self.first(torch.cat([noisy_actions.flatten(1), obs], dim=-1)) + self.time(timestep)
        return self.last(features + self.block(features)).view_as(noisy_actions)


class ChildNetwork(ResidualNetwork):
    """A network derived from one's own; the source of its own module need not speak of the base class."""


class FaultyNetwork(ResidualNetwork):
    """Its author has made a mistake."""

    def __init__(self, *args: int, table: str = "relu", **options: int) -> None:
        super().__init__(*args, **options)
        self.activation = {"tanh": nn.Tanh()}[table]


class PoolingNetwork(ResidualNetwork):
    """Predicts one action for the whole chunk, which would broadcast."""

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        return super().forward(noisy_actions, timestep, obs).mean(1, keepdim=True)


class ActivatedNetwork(ResidualNetwork):
    """Takes a class as an option."""

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        pred_horizon: int,
        num_train_timesteps: int = 100,
        act: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(obs_dim, action_dim, pred_horizon, num_train_timesteps)
        self.act = act()


class Outer:
    class Nested(ResidualNetwork):
        """Cannot be found under its module."""


def own_line(
    folder: Path,
    data: object,
    network: str = "ResidualNetwork",
    init_args: dict[str, object] | None = None,
    **flags: object,
) -> list[str]:
    """The toy run with a network above in place of the MLP."""
    line = [
        word
        for word in fit_line(folder, Path("unused"), **flags)
        if "hidden_dims" not in word and "time_dim" not in word
    ]
    chosen = {"class_path": f"{__name__}.{network}", "init_args": {"width": 24} if init_args is None else init_args}
    return [*line, f"--data.path={data}", f"--model.network={json.dumps(chosen)}"]


def test_own_task_robot_observations_and_network(cli_server: ForkServer, tmp_path: Path) -> None:
    first = write_toy_dataset(tmp_path / "a.hdf5", env_args=STACK, obs_dims=STACK_DIMS)
    second = write_toy_dataset(tmp_path / "b.hdf5", env_args=STACK, obs_dims=STACK_DIMS, seed=9)
    flags: dict[str, Any] = {
        "data__obs_keys": json.dumps(list(STACK_DIMS)),
        "data__task": "null",
        "trainer__max_epochs": 2,
        "rollout__every_n_epochs": 2,
        "rollout__n_episodes": 2,
        "rollout__n_envs": 1,
        "rollout__horizon": 8,
        "rollout__film_strip": 0,
    }
    run = cli_server.start(own_line(tmp_path, f"[{first},{second}]", **flags))
    status, errors = run.wait(), run.stderr
    assert status == 0, errors
    assert f"--network_module {__name__}\n" in run.output.read_text(), "the next command works as it is printed"
    assert "fused" not in errors or "Traceback" not in errors
    last = tmp_path / "last.ckpt"
    _, *words = own_line(tmp_path, f"[{first},{second}]", **flags, ckpt_path=last)
    exported = f"--output={tmp_path / 'again.safetensors'}"
    for line in (
        ["validate", *words],
        ["export", f"--checkpoint={last}", exported, f"--network_module={__name__}"],
    ):
        run = cli_server.start(line)
        assert run.wait() == 0, run.stderr
        assert f"--network_module {__name__}\n" in run.output.read_text()
    policy = load_policy(tmp_path / "policy.safetensors")
    assert isinstance(policy.network, ResidualNetwork)
    assert policy.spec.env_args == STACK
    assert policy.spec.network.init_args == {"width": 24, "dropout": 0.1}
    # What training did by itself, from the exported file alone.
    spec = EnvSpec(policy.spec.env_args, tuple(policy.spec.obs_keys), policy.spec.pred_horizon, horizon=8)
    with EnvPool(spec, n_envs=1) as pool:
        assert (pool.obs_dims, pool.action_dim) == (STACK_DIMS, ACTION_DIM)
        results = run_episodes(DiffusionAgent(policy), pool, 0, range(2))
    assert [result.length for result in results] == [8, 8]
    line = [
        "evaluate",
        f"--checkpoint={tmp_path / 'policy.safetensors'}",
        "--n_episodes=1",
        "--horizon=8",
        "--n_envs=1",
    ]
    status, errors = cli_server.run(line)
    assert (status, "Traceback" in errors) == (2, False), errors
    assert f"--network_module {__name__}" in errors
    judged = tmp_path / "results.json"
    status, errors = cli_server.run([*line, f"--network_module={__name__}", f"--output={judged}"])
    assert status == 0, errors
    if choose_gl() is not None:
        videos = ["report", f"--run={judged}", "--videos=1", f"--network_module={__name__}"]
        status, errors = cli_server.run([*videos, f"--output={tmp_path / 'page.html'}"])
        assert status == 0, errors
        assert "<video" in (tmp_path / "page.html").read_text()
    status, errors = cli_server.run([*line, "--network_module=no_such_networks"])
    assert (status, "Traceback" in errors) == (2, False), errors


def test_a_network_with_dropout_resumes_exactly(cli_server: ForkServer, tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path / "a.hdf5")
    weights = []
    for name, kills in (("whole", 0), ("killed", 1)):
        line = own_line(tmp_path / name, data, ckpt_path="last")
        # Killed in the middle of the second epoch.
        death = "import os, lightning_modules.diffusion_bc as m\n" + (
            "m.DiffusionBC.on_train_batch_start = "
            "lambda self, batch, i: os.kill(os.getpid(), 9) if self.trainer.global_step == 12 else None"
        )
        for _ in range(kills):
            assert cli_server.run(line, before=death)[0] == -9
        status, errors = cli_server.run(line)
        assert status == 0, errors
        weights.append(load_policy(tmp_path / name / "last.ckpt").state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_network_whose_options_are_mistyped(cli_server: ForkServer, tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path / "a.hdf5")
    line = [word.replace('"width"', '"wdith"') for word in own_line(tmp_path / "run", data)]
    status, errors = cli_server.run(line)
    assert status == 2
    assert "wdith" in errors
    assert "Traceback" not in errors


def test_a_network_derived_from_ones_own_can_be_loaded_again(cli_server: ForkServer, tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path / "a.hdf5")
    status, errors = cli_server.run(own_line(tmp_path, data, "ChildNetwork", trainer__max_epochs=1))
    assert status == 0, errors
    assert isinstance(load_policy(tmp_path / "policy.safetensors").network, ChildNetwork)
    line = ["export", f"--checkpoint={tmp_path / 'last.ckpt'}", f"--output={tmp_path / 'again.safetensors'}"]
    status, errors = cli_server.run([*line, f"--network_module={__name__}"])
    assert status == 0, errors


@pytest.mark.parametrize(
    ("network", "init_args", "named"),
    [
        ("ActivatedNetwork", {"act": "torch.nn.Tanh"}, ["init_args.act", "Tanh"]),
        ("PoolingNetwork", {}, ["(2, 1, 7)", "(2, 4, 7)"]),
    ],
)
def test_a_network_that_could_not_be_stored_or_would_broadcast_is_refused_before_training(
    cli_server: ForkServer, tmp_path: Path, network: str, init_args: dict[str, object], named: list[str]
) -> None:
    data = write_toy_dataset(tmp_path / "a.hdf5")
    status, errors = cli_server.run(own_line(tmp_path / "run", data, network, init_args))
    assert (status, "Traceback" in errors) == (2, False), errors
    assert all(each in errors for each in named), errors
    assert not (tmp_path / "run").exists()


def test_a_fault_in_a_users_network_keeps_its_traceback(cli_server: ForkServer, tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path / "a.hdf5")
    status, errors = cli_server.run(own_line(tmp_path / "run", data, "FaultyNetwork", {}))
    assert status == 1, errors
    assert "KeyError: 'relu'" in errors
    assert '{"tanh": nn.Tanh()}[table]' in errors


def test_a_network_that_no_file_could_name_is_refused_at_once() -> None:
    class Local(ResidualNetwork):
        pass

    for network, reason in ((Local, "top level"), (Outer.Nested, "top level"), (nn.Linear, "NoiseNetwork")):
        with pytest.raises(UserError, match=reason):
            NetworkConfig.describe(network)  # type: ignore[arg-type]
    Local.__module__ = "__main__"
    with pytest.raises(UserError, match="script that runs"):
        NetworkConfig.describe(Local)


def test_options_are_kept_as_a_file_gives_them_back() -> None:
    described = NetworkConfig.describe(partial(MLPNoiseNetwork, hidden_dims=(16, 8), time_dim=4))
    assert described.init_args == {"hidden_dims": [16, 8], "time_dim": 4}
    for option in (np.float64(0.5), torch.float32, {1: 2}, nn.ReLU, [lambda x: x]):
        with pytest.raises(UserError, match=r"init_args\.width"):
            NetworkConfig.describe(partial(ResidualNetwork, width=option))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", ".relative", "folder/my_networks.py", "no_such_networks", "no_such.networks"])
def test_a_module_of_networks_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="--network_module"):
        load_checkpoint(tmp_path / "policy.safetensors", network_module=name)
