"""Two CPU processes (gloo) train as one would: same gradients, exact metrics, exact resume, one writer."""

import csv
import json
import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.batches import TensorBatches
from datamodules.robomimic_datamodule import RobomimicDataModule
from lightning_modules import DiffusionBC
from policies import DiffusionPolicy, PolicySpec
from policies.networks import MLPNoiseNetwork
from tests.training_toy import OBS_DIMS, ForkServer, assert_same_state, fit_line, training_state, write_toy_dataset

RANKS = 2
PER_RANK = 4
STEPS = 8  # per epoch: 63 windows in global batches of 8, the last of 7
SEED = 5

# Every step's weights, gradients and batch, as each rank has them.
SPY = """
import copy, os, torch
import lightning_modules.diffusion_bc as module
seen = []
original = module.DiffusionBC.training_step
def training_step(self, batch, batch_idx):
    seen.append({{"obs": batch[0].clone(), "epoch": self.current_epoch, "batch_idx": batch_idx,
                 "count": self.trainer.fit_loop.total_batch_idx,
                 "weights": {{name: value.clone() for name, value in self.policy.state_dict().items()}}}})
    return original(self, batch, batch_idx)
def on_after_backward(self):
    seen[-1]["gradients"] = {{name: p.grad.clone() for name, p in self.policy.named_parameters()}}
def on_train_end(self):
    torch.save(seen, "{folder}/seen" + os.environ["RANK"] + ".pt")
    torch.save(len(self.trainer.strategy.model.modules_buffers), "{folder}/broadcast.pt")
module.DiffusionBC.training_step = training_step
module.DiffusionBC.on_after_backward = on_after_backward
module.DiffusionBC.on_train_end = on_train_end
"""
# Episodes 0, 3 and 4 of 5 succeed; of length 10, 20, ... The simulator is not what is looked at here. Both ranks
# have the same six CPUs.
TOY_ROLLOUTS = """
import callbacks.rollout_success as rollout, types
from tests.training_toy import ACTION_DIM, OBS_DIMS
from rollouts.loop import EpisodeResult
class Pool:
    obs_dims, action_dim = OBS_DIMS, ACTION_DIM
    def __init__(self, spec, n_envs, n_workers, episodes): assert n_workers == 3, n_workers
    def close(self): pass
def run_episodes(agent, pool, seed, indices, **rest):
    return [types.SimpleNamespace(success=i in (0, 3, 4), length=10 * i + 10, total_reward=float(i)) for i in indices]
rollout.EnvPool, rollout.run_episodes, rollout.available_cpus = Pool, run_episodes, lambda: 6
"""
# A process that can write no file at all.
NO_WRITES = """
import os, resource
for fd in (1, 2):
    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""
AGREE_EVERY_TENTH_STEP = """
import callbacks.save_on_signal
callbacks.save_on_signal.STEPS_BETWEEN_AGREEMENTS = 10
"""
SIGTERM_AT_STEP = """
import os, signal
import lightning_modules.diffusion_bc as module
original = module.DiffusionBC.training_step
def training_step(self, batch, batch_idx):
    if self.trainer.global_step == {}:
        os.kill(os.getpid(), signal.SIGTERM)
    return original(self, batch, batch_idx)
module.DiffusionBC.training_step = training_step
"""


def run_ranks(server: ForkServer, line: list[str], before: tuple[str, str] = ("", "")) -> list[int]:
    """Start what torchrun would start, and return both exit statuses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    runs = [
        server.start(line, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, before[rank]) for rank in range(RANKS)
    ]
    statuses = [run.wait() for run in runs]
    for run in runs:
        print(run.stderr)
    return statuses


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5", lengths=(30, 17, 25, 8))


def ddp_line(folder: Path, data: Path, **flags: object) -> list[str]:
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder)}}
    settings: dict[str, object] = {
        "data__batch_size": PER_RANK,
        "seed_everything": SEED,
        "trainer__devices": RANKS,
        "trainer__strategy": "ddp",
        "trainer__logger": json.dumps(logger),
        "trainer__log_every_n_steps": 1,
        "trainer__check_val_every_n_epoch": 1,
        "rollout__every_n_epochs": 3,
        "rollout__n_episodes": 5,
        "rollout__film_strip": 0,
    }
    return fit_line(folder, data, **(settings | flags))


@pytest.fixture(scope="module")
def whole(cli_server: ForkServer, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an undisturbed run of three epochs."""
    folder = tmp_path_factory.mktemp("ddp")
    before = TOY_ROLLOUTS + SPY.format(folder=folder)
    assert run_ranks(cli_server, ddp_line(folder, data), (before, before)) == [0, 0]
    return folder


def chunks_of(data: Path) -> RobomimicDataModule:
    module = RobomimicDataModule(str(data), "lift", list(OBS_DIMS))
    module.setup()
    return module


def noise_generator(rank: int, count: int, stage: int = 0) -> torch.Generator:
    entropy = np.random.SeedSequence((SEED, rank, count, stage)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(entropy >> np.uint64(1)))


def policy_of(checkpoint: Path) -> DiffusionPolicy:
    spec = torch.load(checkpoint, weights_only=True)["policy_spec"]
    return DiffusionPolicy(PolicySpec.from_dict(spec, str(checkpoint)))


def test_gradients_equal_one_process_with_the_same_global_batch_and_noise(whole: Path, data: Path) -> None:
    chunks = chunks_of(data).train_chunks
    policy = policy_of(whole / "last.ckpt")
    seen = [torch.load(whole / f"seen{rank}.pt", weights_only=True) for rank in range(RANKS)]
    loaders = [TensorBatches((chunks.obs, chunks.actions), PER_RANK, True, SEED, r, RANKS) for r in range(RANKS)]
    assert len(seen[0]) == 3 * STEPS
    for steps in zip(*seen, strict=True):
        first = steps[0]
        policy.load_state_dict(first["weights"])
        policy.zero_grad()
        total = loaders[0].global_batch_size(first["batch_idx"])
        for rank, step in enumerate(steps):
            loaders[rank].set_epoch(step["epoch"])
            obs, actions = list(loaders[rank])[step["batch_idx"]]
            assert torch.equal(obs, step["obs"])
            (policy.loss(obs, actions, noise_generator(rank, step["count"])) * len(obs) / total).backward()
            assert all(torch.equal(step["weights"][name], value) for name, value in first["weights"].items())
        for name, parameter in policy.named_parameters():
            assert parameter.grad is not None
            for step in steps:
                assert torch.allclose(step["gradients"][name], parameter.grad, atol=1e-6, rtol=1e-4), name


def test_ranks_draw_different_batches_and_noise(whole: Path) -> None:
    left, right = (torch.load(whole / f"seen{rank}.pt", weights_only=True) for rank in range(RANKS))
    for a, b in zip(left, right, strict=True):
        pairs = torch.cdist(a["obs"], b["obs"])
        assert float(pairs.min()) > 0, "no sample is in both ranks' batches"
    assert [len(step["obs"]) for step in left[:STEPS]] == [4] * 8
    assert [len(step["obs"]) for step in right[:STEPS]] == [4] * 7 + [3]
    draws = [torch.randn(4, generator=noise_generator(rank, 0)) for rank in range(RANKS)]
    assert not torch.equal(*draws)


class WithRunningMean(MLPNoiseNetwork):
    """A network with a buffer that training changes."""

    def __init__(self, obs_dim: int, action_dim: int, pred_horizon: int, num_train_timesteps: int) -> None:
        super().__init__(obs_dim, action_dim, pred_horizon, num_train_timesteps, hidden_dims=[8])
        self.register_buffer("running_mean", torch.zeros(3))


def test_no_constant_is_broadcast_at_a_forward_pass(whole: Path) -> None:
    assert torch.load(whole / "broadcast.pt") == 0
    module = DiffusionBC(OBS_DIMS, 7, 4, network=WithRunningMean)
    names = {name for name, _ in module.named_buffers()}
    assert names - set(module._ddp_params_and_buffers_to_ignore) == {"policy.network.running_mean"}


def logged(folder: Path, name: str) -> list[float]:
    with next(folder.glob("*/version_0/metrics.csv")).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_validation_loss_is_exact_for_uneven_shards(whole: Path, data: Path) -> None:
    chunks = chunks_of(data).val_chunks
    assert len(chunks) == 5, "three samples for one rank, two for the other"
    policy = policy_of(whole / "last.ckpt")
    state = torch.load(whole / "last.ckpt", weights_only=True)["state_dict"]
    policy.load_state_dict({k.removeprefix("ema_policy."): v for k, v in state.items() if k.startswith("ema_policy.")})
    total = 0.0
    with torch.no_grad():
        for rank in range(RANKS):
            loader = TensorBatches((chunks.obs, chunks.actions), PER_RANK, False, SEED, rank, RANKS)
            for index, (obs, actions) in enumerate(loader):
                total += float(policy.loss(obs, actions, noise_generator(rank, index, stage=1))) * len(obs)
    assert logged(whole, "val/loss")[-1] == pytest.approx(total / 5, rel=1e-5)


def test_rollouts_are_sharded_and_reduced_exactly(whole: Path) -> None:
    assert logged(whole, "rollout/success_rate") == [pytest.approx(0.6, rel=1e-6)]
    assert logged(whole, "rollout/episode_length") == [pytest.approx(30, rel=1e-6)]
    assert logged(whole, "rollout/return") == [pytest.approx(2, rel=1e-6)]


def test_a_rank_without_episodes_or_validation_samples(cli_server: ForkServer, tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path / "toy.hdf5", lengths=(30, 4))  # one validation window
    line = ddp_line(tmp_path, data, trainer__max_epochs=1, rollout__every_n_epochs=1, rollout__n_episodes=1)
    assert run_ranks(cli_server, line, (TOY_ROLLOUTS, TOY_ROLLOUTS)) == [0, 0]
    assert logged(tmp_path, "rollout/success_rate") == [1.0]
    assert 0 < logged(tmp_path, "val/loss")[0] < 10


@pytest.mark.parametrize(("step", "saved"), [(3, 8), (8, 10)])  # at the end of the first epoch, within the second
def test_preempted_and_resumed_with_one_writer(
    cli_server: ForkServer, data: Path, whole: Path, tmp_path: Path, step: int, saved: int
) -> None:
    line = ddp_line(tmp_path, data, ckpt_path="last")
    # Only rank 0 is told to stop; both must agree on when: at every tenth step, and when an epoch ends.
    before = TOY_ROLLOUTS + AGREE_EVERY_TENTH_STEP
    statuses = run_ranks(cli_server, line, (before + SIGTERM_AT_STEP.format(step), before))
    assert statuses == [128 + signal.SIGTERM] * 2
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == saved
    statuses = run_ranks(cli_server, line, (TOY_ROLLOUTS, TOY_ROLLOUTS + NO_WRITES))
    assert statuses == [0, 0]
    assert_same_state(tmp_path / "last.ckpt", whole / "last.ckpt")
    assert os.path.exists(tmp_path / "policy.safetensors")
