"""What a training batch is made of: windows within episodes, each once per epoch, from any Robomimic low-dim file."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from common.errors import UserError
from datamodules.batches import TensorBatches
from datamodules.chunks import window_chunks
from datamodules.conventions import held_components
from datamodules.hdf5 import DatasetFile
from datamodules.robomimic_datamodule import RobomimicDataModule
from envs.tasks import default_env_args
from tests.training_toy import OBS_DIMS, write_toy_dataset

KEYS = list(OBS_DIMS)
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "ph_lift_low_dim.hdf5"


def counting(lengths: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Episodes whose observations and actions say (episode, step)."""
    return [(rows := torch.tensor([[i, t] for t in range(length)]), rows) for i, length in enumerate(lengths)]


@pytest.mark.parametrize("horizon", [1, 2, 4, 7])
def test_windows_never_cross_episodes(horizon: int) -> None:
    lengths = [9, 1, 4, 12, 3]
    chunks = window_chunks(counting(lengths), horizon)
    assert len(chunks) == sum(max(0, length - horizon + 1) for length in lengths)
    assert chunks.skipped == sum(length < horizon for length in lengths)
    for (episode, step), window in zip(chunks.obs.tolist(), chunks.actions.tolist(), strict=True):
        assert window == [[episode, step + k] for k in range(horizon)]


def test_padding_keeps_the_gripper_and_stops_the_hand() -> None:
    chunks = window_chunks(counting([3, 1]), 4, held=(False, True))
    assert chunks.skipped == 0
    assert chunks.obs.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]
    assert chunks.actions[:, :, 1].tolist() == [[0, 1, 2, 2], [1, 2, 2, 2], [2, 2, 2, 2], [0, 0, 0, 0]]
    assert chunks.actions[:, :, 0].tolist() == [[0] * 4, [0] * 4, [0] * 4, [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("kwargs", "dim", "kept"),
    [
        ({}, 7, [6]),
        ({"robots": ["Panda", "Panda"]}, 14, [6, 13]),
        ({"controller_configs": {"control_delta": False}}, 7, [0, 1, 2, 3, 4, 5, 6]),
    ],
    ids=["one arm", "two arms", "absolute poses"],
)
def test_what_the_padding_keeps_follows_from_the_header(kwargs: dict[str, object], dim: int, kept: list[int]) -> None:
    held = held_components({"env_name": "X", "env_kwargs": kwargs}, dim)
    assert [i for i in range(dim) if held[i]] == kept


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("samples", "batch_size"), [(63, 8), (64, 8), (7, 8), (49, 8), (50, 8), (3, 1)])
def test_an_epoch_covers_each_sample_once(world_size: int, samples: int, batch_size: int) -> None:
    data = (torch.arange(samples), torch.arange(samples) * 10)
    ranks = [TensorBatches(data, batch_size, True, 7, rank, world_size) for rank in range(world_size)]
    orders = []
    for epoch in (0, 1):
        per_rank = []
        for loader in ranks:
            loader.set_epoch(epoch)
            batches = list(loader)
            assert len(batches) == len(loader)
            assert all(torch.equal(a * 10, b) for a, b in batches)
            per_rank.append([a.tolist() for a, _ in batches])
        assert len({len(batches) for batches in per_rank}) == 1, "every rank takes equally many steps"
        drawn = [sample for batches in per_rank for batch in batches for sample in batch]
        assert sorted(drawn) == list(range(samples))
        for index, parts in enumerate(zip(*per_rank, strict=True)):
            assert sum(map(len, parts)) == ranks[0].global_batch_size(index)
            assert all(parts), "no rank is without a sample"
        orders.append(drawn)
    assert orders[0] != orders[1]


def test_the_global_batches_do_not_depend_on_the_number_of_ranks() -> None:
    data = (torch.arange(100),)
    alone = [batch.tolist() for (batch,) in TensorBatches(data, 12, True, 3)]
    ranks = [[batch.tolist() for (batch,) in TensorBatches(data, 6, True, 3, rank, 2)] for rank in (0, 1)]
    assert [sorted(a) for a in alone] == [sorted(a + b) for a, b in zip(*ranks, strict=True)]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = TensorBatches((torch.arange(50),), 7, True, seed)
        loader.set_epoch(epoch)
        return [sample for (batch,) in loader for sample in batch.tolist()]

    assert order(0, 3) == order(0, 3)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_position_survives_a_restart_within_an_epoch() -> None:
    loader = TensorBatches((torch.arange(50),), 7, True, 0)
    loader.set_epoch(2)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    rest = [batch.tolist() for (batch,) in batches]
    again = TensorBatches((torch.arange(50),), 7, True, 0, resumable=True)
    started_early = iter(again)  # as Lightning does
    again.load_state_dict(state)
    again.set_epoch(2)
    assert [batch.tolist() for (batch,) in started_early] == rest
    again.set_epoch(3)
    assert sum(len(batch) for (batch,) in again) == 50


def test_a_validation_that_was_broken_off_starts_anew() -> None:
    loader = TensorBatches((torch.arange(50),), 7)
    first = next(iter(loader))[0]
    assert torch.equal(next(iter(loader))[0], first)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_toy_dataset(tmp_path / "toy.hdf5")


def module(*args: object, **options: object) -> RobomimicDataModule:
    data = RobomimicDataModule(*args, **{"obs_keys": KEYS, "task": "lift", **options})  # type: ignore[arg-type]
    data.setup()
    return data


def test_windows_hold_the_files_numbers(path: Path) -> None:
    data = module(str(path))
    assert (data.obs_dims, data.action_dim) == (OBS_DIMS, 7)
    with h5py.File(path) as file:
        demo = file["data/demo_1"]
        obs = np.concatenate([demo["obs"][key][:] for key in KEYS], axis=1)
        start = 30 - 3  # windows of demo_0
        np.testing.assert_array_equal(data.train_chunks.obs[start : start + 14], obs[:14].astype(np.float32))
        np.testing.assert_array_equal(data.train_chunks.actions[start + 5], demo["actions"][5:9].astype(np.float32))
    assert data.train_chunks.obs.dtype == data.train_chunks.actions.dtype == torch.float32


def test_obs_keys_are_concatenated_in_the_order_asked_for(path: Path) -> None:
    forward, backward = module(str(path)), module(str(path), obs_keys=KEYS[::-1])
    assert list(backward.obs_dims) == KEYS[::-1]
    assert torch.equal(backward.train_chunks.obs, forward.train_chunks.obs.roll(5, dims=1))
    assert module(str(path), obs_keys=["object"]).train_chunks.obs.shape[1] == 5


def test_filter_keys_choose_demonstrations(path: Path) -> None:
    data = module(str(path))
    assert (len(data.train_chunks), len(data.val_chunks)) == (27 + 14 + 22, 6)
    everything = module(str(path), train_filter_key=None, val_filter_key=None)
    assert (len(everything.train_chunks), len(everything.val_chunks)) == (27 + 14 + 22 + 6, 0)
    assert everything.val_dataloader() == []
    for key in ("train_filter_key", "val_filter_key"):
        with pytest.raises(UserError, match="Filter keys there: train, valid"):
            module(str(path), **{key: "20_percent"})


def edit_masks(path: Path, masks: dict[str, list[str]]) -> None:
    with h5py.File(path, "r+") as file:
        del file["mask"]
        for key, names in masks.items():
            file[f"mask/{key}"] = np.array(names, dtype="S")


@pytest.mark.parametrize("masks", [{}, {"20_percent": ["demo_1"]}, {"train": ["demo_50"], "valid": ["demo_51"]}])
def test_without_usable_masks_a_tenth_is_held_out(tmp_path: Path, masks: dict[str, list[str]]) -> None:
    path = write_toy_dataset(tmp_path / "toy.hdf5", lengths=[10] * 20)
    edit_masks(path, masks)
    with pytest.warns(UserWarning, match="2 are held out for validation, 18 train"):
        data = module(str(path))
    assert (len(data.train_chunks), len(data.val_chunks)) == (18 * 7, 2 * 7)
    both = torch.cat([data.train_chunks.obs, data.val_chunks.obs])
    assert len(both.unique(dim=0)) == 20 * 7, "no demonstration is in both"
    other_seed = module(str(path), seed=5)
    assert torch.equal(other_seed.val_chunks.obs, data.val_chunks.obs)
    with pytest.warns(UserWarning, match="training on all 20"):
        everything = module(str(path), val_filter_key=None)
    assert len(everything.train_chunks) == 20 * 7


def test_one_mask_alone_is_completed(path: Path) -> None:
    edit_masks(path, {"valid": ["demo_1"]})
    with pytest.warns(UserWarning, match="training on the other 3"):
        data = module(str(path))
    assert (len(data.train_chunks), len(data.val_chunks)) == (27 + 22 + 6, 14)
    edit_masks(path, {"train": ["demo_0", "demo_2"]})
    with pytest.warns(UserWarning, match="1 are held out for validation, 1 train"):
        data = module(str(path))
    assert sorted([len(data.train_chunks), len(data.val_chunks)]) == [22, 27]


def test_the_first_demonstrations_alone(path: Path) -> None:
    first = module(str(path), n_demos=2)
    assert (len(first.train_chunks), len(first.val_chunks)) == (27 + 14, 6)
    assert torch.equal(first.train_chunks.obs, module(str(path)).train_chunks.obs[: 27 + 14])
    with pytest.raises(UserError, match=r"data.n_demos is 4, but .* has 3 demonstrations to train on"):
        module(str(path), n_demos=4)
    with pytest.raises(UserError, match=r"data\.n_demos is 0"):
        module(str(path), n_demos=0)


def test_several_files_are_one_set(path: Path, tmp_path: Path) -> None:
    second = write_toy_dataset(tmp_path / "second.hdf5", lengths=(20, 5), seed=9)
    both = module([str(path), str(second)])
    assert len(both.train_chunks) == 63 + 17
    assert torch.equal(both.train_chunks.obs[63:], module(str(second)).train_chunks.obs)
    fingerprints = {each.data_sha256 for each in (both, module(str(path)), module(str(second)))}
    assert len(fingerprints) == 3


def test_files_that_do_not_go_together(path: Path, tmp_path: Path) -> None:
    other = write_toy_dataset(tmp_path / "other.hdf5", obs_dims={"robot0_eef_pos": 3, "object": 14})
    with pytest.raises(UserError, match="expected the same task"):
        module([str(path), str(other)])
    env_args = {"env_name": "Door", "type": 1, "env_kwargs": {}}
    door = write_toy_dataset(tmp_path / "door.hdf5", env_args=env_args)
    silent = without_env_args(tmp_path)
    for files in ([path, door], [silent, path, door]):
        with pytest.raises(UserError, match=r"door\.hdf5 has env_name \"Door\", .*/toy\.hdf5 \"Lift\""):
            module([str(file) for file in files])


def without_env_args(folder: Path) -> Path:
    path = write_toy_dataset(folder / "silent.hdf5")
    with h5py.File(path, "a") as file:
        del file["data"].attrs["env_args"]
    return path


def test_a_file_that_does_not_say_what_it_is_of_goes_with_any(path: Path, tmp_path: Path) -> None:
    silent = without_env_args(tmp_path)
    assert module(str(silent)).env_args is None
    for files in ([path, silent], [silent, path]):
        assert module([str(file) for file in files]).env_args == module(str(path)).env_args
    env_args = default_env_args("lift")
    env_args["env_kwargs"]["controller_configs"]["control_delta"] = False
    poses = write_toy_dataset(tmp_path / "poses.hdf5", env_args=env_args)
    for files in ([poses, silent], [silent, poses]):
        with pytest.raises(UserError, match=r"silent\.hdf5 has no env_args, and the actions of \S*poses\.hdf5 are"):
            module([str(file) for file in files])


def test_demonstrations_by_their_numbers(path: Path) -> None:
    with DatasetFile(path) as file:
        there = file.names()
        assert file.numbered("1") == [there[1]]
        assert file.numbered(" 2-3,0, 3") == [there[0], *there[2:]]


def test_short_episodes_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write_toy_dataset(tmp_path / "short.hdf5", lengths=(3, 12, 2, 8))
    with pytest.warns(UserWarning, match="skipped 2 demonstrations shorter than pred_horizon 4"):
        data = module(str(path))
    assert len(data.train_chunks) == 9
    assert len(module(str(path), pad_end=True).train_chunks) == 3 + 12 + 2
    with pytest.raises(UserError, match="every demonstration is shorter than pred_horizon 20"):
        module(str(path), pred_horizon=20)


def test_the_real_file_as_it_is() -> None:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not here")
    data = RobomimicDataModule(str(REAL), task="lift", val_filter_key=None)
    data.setup()
    assert data.env_args is None
    assert sum(data.obs_dims.values()) == 19
    assert len(data.train_chunks) == 58 - 3  # its mask names one demonstration that is there
    everything = RobomimicDataModule(str(REAL), task="lift", train_filter_key=None, val_filter_key=None)
    everything.setup()
    assert len(everything.train_chunks) == 59 + 58 - 6
    assert everything.train_chunks.obs.dtype == torch.float32
