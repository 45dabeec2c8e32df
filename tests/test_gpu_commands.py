"""Every command that uses a device, on the GPU where there is one; `benchmarks/gpu.sh` runs these first.

On a machine without a GPU they run on the CPU, so that they are known to work when a GPU comes.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import cli
from commands.front_door import run
from envs.tasks import default_env_args
from policies import DiffusionPolicy, PolicySpec
from policies.schedule import DiffusionConfig
from policies.spec import NetworkConfig
from tests.training_toy import assert_same_state, fit_line, training_state, write_toy_dataset
from tests.worker_threads import worker_threads

pytestmark = pytest.mark.gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LIFT_DIMS = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}
# Compiling takes a CPU half a minute; what is compiled is tested there in test_dsrl_fast_update.py and
# test_training_equals_plain_loop.py.
COMPILATIONS = ["off", "kernels", "cuda_graphs"] if DEVICE == "cuda" else ["off"]


@pytest.fixture(autouse=True)
def on_the_gpu() -> Iterator[None]:
    """Where there is a GPU, the test must have used it."""
    before = torch.cuda.memory_stats()["allocation.all.allocated"] if DEVICE == "cuda" else 0
    yield
    if DEVICE == "cuda":
        assert torch.cuda.memory_stats()["allocation.all.allocated"] > before, "nothing was computed on the GPU"


@pytest.fixture(autouse=True)
def simulated_here() -> Iterator[None]:
    """The simulator, which uses no device, in a thread of this process."""
    with worker_threads():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5", obs_dims=LIFT_DIMS)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Lift policy."""
    spec = PolicySpec(
        obs_dims=LIFT_DIMS,
        action_dim=7,
        pred_horizon=4,
        network=NetworkConfig(init_args={"hidden_dims": [16]}),
        diffusion=DiffusionConfig(num_train_timesteps=10, ddim_steps=2),
        env_args=default_env_args("lift"),
        task="lift",
    )
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    DiffusionPolicy(spec).save(path)
    return path


def command(*words: object) -> None:
    assert run(cli.COMMANDS, [str(word) for word in words]) == 0


def fit(folder: Path, data: Path, **flags: object) -> None:
    flags = {"data__obs_keys": json.dumps(list(LIFT_DIMS)), "trainer__accelerator": DEVICE} | flags
    command(*fit_line(folder, data, **flags))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("compilation", COMPILATIONS)
def test_fit_in_every_precision_and_compilation(data: Path, tmp_path: Path, precision: str, compilation: str) -> None:
    fit(tmp_path, data, trainer__precision=precision, model__compile_network=compilation)
    state = training_state(tmp_path / "last.ckpt")
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    moments = torch.load(tmp_path / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"][0]
    assert moments["exp_avg"].device.type == DEVICE


def test_interrupted_and_resumed_equals_undisturbed(data: Path, tmp_path: Path) -> None:
    fit(tmp_path / "whole", data)
    with pytest.raises(KeyError, match="stop"):
        _fit_until(tmp_path / "halves", data, step=9)
    fit(tmp_path / "halves", data, ckpt_path="last")
    assert_same_state(tmp_path / "whole/last.ckpt", tmp_path / "halves/last.ckpt")


def _fit_until(folder: Path, data: Path, step: int) -> None:
    """A fit that dies in the middle of an epoch."""
    from lightning_modules import DiffusionBC

    original = DiffusionBC.training_step

    def training_step(self: DiffusionBC, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if self.global_step == step:
            raise KeyError("stop")
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionBC, "training_step", training_step)
        fit(folder, data)


def test_a_checkpoint_goes_on_on_the_other_device_and_back(data: Path, tmp_path: Path) -> None:
    for epochs, device in ((1, DEVICE), (2, "cpu"), (3, DEVICE)):
        # The schedule's end must not move with the epochs.
        flags: dict[str, object] = {"model__lr_schedule": "constant", "trainer__max_epochs": epochs}
        fit(tmp_path, data, trainer__accelerator=device, ckpt_path="last", **flags)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True, map_location="cpu")
    assert state["epoch"] == 2
    assert state["optimizer_states"][0]["state"][0]["exp_avg"].abs().sum() > 0


def test_validate_with_rollouts_and_export(data: Path, tmp_path: Path) -> None:
    rollouts: dict[str, object] = {"rollout__every_n_epochs": 3, "rollout__n_episodes": 2, "rollout__n_envs": 2}
    rollouts |= {"rollout__horizon": 20, "rollout__film_strip": 0}
    fit(tmp_path, data, **rollouts)
    line = fit_line(tmp_path, data, trainer__accelerator=DEVICE, **rollouts)
    keys = f"--data.obs_keys={json.dumps(list(LIFT_DIMS))}"
    command("validate", *line[1:], keys, "--ckpt_path=last")
    command("export", "--checkpoint", tmp_path / "last.ckpt", "--output", tmp_path / "exported.safetensors")
    exported = DiffusionPolicy.load(tmp_path / "exported.safetensors", "cpu")
    same = DiffusionPolicy.load(tmp_path / "exported.safetensors", DEVICE)
    obs, noise = torch.randn(5, exported.spec.obs_dim), torch.randn(5, *exported.chunk_shape)
    with torch.no_grad():
        chunks = [policy.decode(obs.to(d), noise.to(d)).cpu() for policy, d in ((exported, "cpu"), (same, DEVICE))]
    torch.testing.assert_close(*chunks, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("compilation", COMPILATIONS)
@pytest.mark.parametrize("algorithm", ["prior", "sac", "na"])
def test_every_learner_trains_resumes_and_is_evaluated(
    policy: Path, tmp_path: Path, algorithm: str, compilation: str
) -> None:
    line = ["dsrl", "--bc_checkpoint", policy, "--task", "lift", "--device", DEVICE, "--output", tmp_path / "run"]
    line += ["--ddim_steps", 2, "--initial_steps", 80, "--utd", 1, "--learner.algorithm", algorithm]
    line += ["--learner.hidden_sizes", "[16]", "--learner.batch_size", 8, "--learner.buffer_size", 1000]
    line += ["--learner.compile_losses", compilation, "--env.horizon", 20, "--env.n_envs", 2]
    line += ["--evaluation.every", 80, "--evaluation.episodes", 2, "--evaluation.report_episodes", 0]
    command(*line, "--train_steps", 80)
    command(*line, "--train_steps", 160, "--resume")
    with (tmp_path / "run/metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["updates"]) > 0
    assert np.isfinite(float(last["train/critic_loss"]))
    if algorithm == "prior" and compilation == "off":
        sac, results = tmp_path / "run/sac_best.zip", tmp_path / "results.json"
        command(
            "evaluate", "--checkpoint", policy, "--sac", sac, "--n_episodes", 2, "--horizon", 20, "--output", results
        )
        assert results.exists()
