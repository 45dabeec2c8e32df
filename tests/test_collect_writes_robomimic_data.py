"""What `collect` writes is Robomimic's format, replays, and depends on the seed alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from commands.collect import collect
from common.errors import UserError
from datamodules.hdf5 import DatasetFile
from datamodules.splits import split_masks
from envs.episodes import episode_seed
from envs.robosuite_env import RobosuiteEnv, SteppingName
from envs.tasks import default_env_args
from experts.collection import RECORDED_KEYS
from tests.hdf5_problems import problems
from tests.worker_threads import worker_threads

TASKS = ("lift", "can", "square")
STATE_DIMS = {"lift": 32, "can": 71, "square": 45}
N_DEMOS = 3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("collected")
    paths = {task: folder / f"{task}.hdf5" for task in TASKS}
    with worker_threads():
        for task, path in paths.items():
            collect(task, N_DEMOS, path, seed=3, n_envs=N_DEMOS)  # type: ignore[arg-type]
    return paths


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def env(task: str) -> Iterator[RobosuiteEnv]:
    env = RobosuiteEnv(default_env_args(task), RECORDED_KEYS)
    yield env
    env.close()


def test_layout_is_robomimics(files: dict[str, Path], task: str) -> None:
    with h5py.File(files[task]) as file:
        env_args = json.loads(file["data"].attrs["env_args"])
        assert env_args == default_env_args(task)
        lengths = {name: len(demo["actions"]) for name, demo in file["data"].items()}
        assert list(lengths) == [f"demo_{i}" for i in range(N_DEMOS)]
        assert file["data"].attrs["total"] == sum(lengths.values())
        masks = {key: [name.decode() for name in names] for key, names in file["mask"].items()}
        assert {key: len(names) for key, names in masks.items()} == {"train": N_DEMOS - 1, "valid": 1}
        assert sorted(masks["train"] + masks["valid"]) == sorted(lengths)
        for name, demo in file["data"].items():
            length = lengths[name]
            assert demo.attrs["num_samples"] == length
            assert "<mujoco" in demo.attrs["model_file"]
            assert demo["actions"].shape == (length, 7)
            assert demo["states"].shape == (length, STATE_DIMS[task])
            assert demo["actions"].dtype == demo["states"].dtype == demo["rewards"].dtype == np.float64
            for part in ("obs", "next_obs"):
                assert set(demo[part]) == set(RECORDED_KEYS)
                assert demo[part]["object"].shape == (length, 10 if task == "lift" else 14)
            np.testing.assert_array_equal(demo["obs/object"][1:], demo["next_obs/object"][:-1])
            # The episode ends with its first success.
            np.testing.assert_array_equal(demo["dones"][:], np.arange(length) == length - 1)
            np.testing.assert_array_equal(demo["rewards"][:], demo["dones"][:])
    assert problems(files[task]) == []


def test_stored_states_give_back_the_stored_observations(files: dict[str, Path], task: str, env: RobosuiteEnv) -> None:
    with DatasetFile(files[task]) as file:
        for name in file.names():
            demonstration = file.read(name)
            stored = np.concatenate([demonstration.obs[key] for key in RECORDED_KEYS], axis=1)
            for t in range(0, len(demonstration), 5):
                env.reset_to(demonstration.states[t], demonstration.model_file)
                np.testing.assert_allclose(env.observe(), stored[t], atol=1e-9)


@pytest.mark.parametrize("stepping", ["fused", "stock"])
def test_replaying_the_stored_actions_succeeds(files: dict[str, Path], task: str, stepping: SteppingName) -> None:
    env = RobosuiteEnv(default_env_args(task), stepping=stepping)
    with DatasetFile(files[task]) as file:
        for name in file.names() if stepping == "fused" else file.names()[:1]:
            demonstration = file.read(name)
            env.reset_to(demonstration.states[0], demonstration.model_file)
            solved = [env.advance(action) for action in demonstration.actions]
            np.testing.assert_array_equal(solved, demonstration.dones.astype(bool))
    env.close()


def test_robomimics_own_reader_reads_it(files: dict[str, Path], task: str) -> None:
    from robomimic.utils.dataset import SequenceDataset
    from robomimic.utils.obs_utils import initialize_obs_utils_with_obs_specs

    keys = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
    initialize_obs_utils_with_obs_specs([{"obs": {"low_dim": list(keys)}}])
    dataset = SequenceDataset(
        str(files[task]),
        obs_keys=keys,
        dataset_keys=("actions", "rewards", "dones"),
        seq_length=4,
        hdf5_cache_mode="low_dim",
        filter_by_attribute="train",
    )
    with DatasetFile(files[task]) as file:
        names = file.names("train")
        first = file.read(names[0])
        assert len(dataset) == sum(len(file.read(name)) for name in names)
    assert dataset[0]["actions"].shape == (4, 7)
    np.testing.assert_allclose(dataset[0]["actions"], first.actions[:4], atol=1e-6)
    np.testing.assert_allclose(dataset[0]["obs"]["object"], first.obs["object"][:4], atol=1e-6)


def test_the_seed_alone_decides_at_any_number_of_environments(
    tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for n_envs in (1, 3):
        collect("lift", 3, tmp_path / f"{n_envs}.hdf5", style="mixed", seed=11, n_envs=n_envs)
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 demonstrations (scripted expert, mixed)" in printed
    assert "3 of 3 episodes succeeded" in printed
    with DatasetFile(tmp_path / "1.hdf5") as one, DatasetFile(tmp_path / "3.hdf5") as three:
        assert one.attributes["source"] == "scripted expert, mixed, seed 11"
        assert one.masks == three.masks
        for name in one.names():
            a, b = one.read(name), three.read(name)
            np.testing.assert_array_equal(a.actions, b.actions)
            np.testing.assert_array_equal(a.states, b.states)
            assert a.model_file == b.model_file
        with DatasetFile(files["lift"]) as other:
            assert not np.array_equal(one.read("demo_0").states[0], other.read("demo_0").states[0])


def test_no_demonstration_starts_where_an_evaluation_does(files: dict[str, Path], task: str, env: RobosuiteEnv) -> None:
    with DatasetFile(files[task]) as dataset:
        demos = [dataset.read(name) for name in dataset.names()]
    starts = [np.concatenate([demo.obs[key][0] for key in RECORDED_KEYS]) for demo in demos]
    evaluated = [env.reset(seed=episode_seed(3, index))[0] for index in range(2 * N_DEMOS)]  # the same seed, 3
    assert len(starts) == N_DEMOS
    assert min(np.abs(start - other).max() for start in starts for other in evaluated) > 1e-4


def test_masks_split_nine_to_one_by_seed() -> None:
    masks = split_masks(200, seed=0)
    assert (len(masks["train"]), len(masks["valid"])) == (180, 20)
    assert set(masks["train"]).isdisjoint(masks["valid"])
    assert split_masks(200, seed=0) == masks != split_masks(200, seed=1)
    assert split_masks(1, seed=0) == {"train": ["demo_0"], "valid": []}


@pytest.mark.parametrize(("arguments", "flag"), [({"n_demos": 0}, "--n_demos"), ({"seed": -1}, "--seed")])
def test_senseless_arguments_are_refused(tmp_path: Path, arguments: dict[str, int], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        collect("lift", **{"n_demos": 1, **arguments}, output=tmp_path / "x.hdf5")  # type: ignore[arg-type]


def test_an_output_that_cannot_be_written_is_refused_before_collecting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        collect("lift", 10_000, tmp_path / "file" / "x.hdf5")
