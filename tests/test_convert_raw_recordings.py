"""`convert` makes of states and actions what a low-dim file holds."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import robosuite

from commands.collect import collect
from commands.convert import convert
from common.errors import UserError
from datamodules.demonstrations import write_dataset
from datamodules.hdf5 import DatasetFile
from envs.tasks import default_env_args
from tests.hdf5_problems import problems
from tests.worker_threads import worker_threads

ROBOSUITES_OWN = Path(robosuite.__path__[0]) / "models/assets/demonstrations/lift/demo.hdf5"  # three, human


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("collected") / "lift.hdf5"
    with worker_threads():
        collect("lift", 2, path, n_envs=2)
    return path


def test_states_of_a_collected_file_give_it_back(
    collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with DatasetFile(collected) as file:
        demonstrations = [file.read(name) for name in file.names()]
    # As raw as a recording is, but for shaped rewards, which must not come through.
    raw = [
        dataclasses.replace(demo, obs={}, next_obs={}, rewards=np.linspace(0, 1, len(demo))) for demo in demonstrations
    ]
    shaped = default_env_args("lift")
    shaped["env_kwargs"]["reward_shaping"] = True
    write_dataset(tmp_path / "raw.hdf5", raw, shaped, {})
    convert(tmp_path / "raw.hdf5", tmp_path / "low_dim.hdf5")
    assert "2 of 2 succeed; the replay of 2 gives back the recorded states" in capsys.readouterr().out
    assert problems(tmp_path / "low_dim.hdf5") == []
    with DatasetFile(tmp_path / "low_dim.hdf5") as file:
        assert file.env_args == default_env_args("lift")
        for name, expected in zip(file.names(), demonstrations, strict=True):
            converted = file.read(name)
            for part in ("actions", "states", "rewards", "dones"):
                np.testing.assert_array_equal(getattr(converted, part), getattr(expected, part))
            for key, values in expected.obs.items():
                np.testing.assert_allclose(converted.obs[key], values, atol=1e-9)
                np.testing.assert_allclose(converted.next_obs[key], expected.next_obs[key], atol=1e-6)
            assert converted.model_file == expected.model_file


def test_a_recording_that_does_not_replay_is_named(
    collected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with DatasetFile(collected) as file:
        demo = file.read("demo_0")
    other = dataclasses.replace(demo, actions=np.zeros_like(demo.actions))
    write_dataset(tmp_path / "raw.hdf5", [demo, other], default_env_args("lift"), {})
    convert(tmp_path / "raw.hdf5", tmp_path / "low_dim.hdf5", n_envs=1)
    printed = capsys.readouterr().out
    assert "demo_1: its actions, played again, leave the recorded states at step" in printed
    assert "demo_0:" not in printed
    assert "the replay of 1 gives back" in printed


def test_robosuites_own_recordings_end_at_their_success(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"action values .* are clipped"):
        convert(ROBOSUITES_OWN, tmp_path / "low_dim.hdf5", cut_at_success=True)
    assert problems(tmp_path / "low_dim.hdf5") == []
    with DatasetFile(tmp_path / "low_dim.hdf5") as file:
        assert file.env_args is not None
        assert file.env_args["env_kwargs"]["controller_configs"]["damping_ratio"] == 1, "the recording's own controller"
        for name in file.names():
            demo = file.read(name)
            np.testing.assert_array_equal(demo.rewards, np.arange(len(demo)) == len(demo) - 1)
            assert demo.obs["object"].shape == (len(demo), 10)
        assert sum(len(file.read(name)) for name in file.names()) < 482 + 510 + 392


def test_what_cannot_be_converted_is_one_message(collected: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.hdf5"
    raw.write_bytes(collected.read_bytes())
    with h5py.File(raw, "r+") as file:
        del file["data"].attrs["env_args"]
    with pytest.raises(UserError, match="Name the task"):
        convert(raw, tmp_path / "out.hdf5")
    with h5py.File(raw, "r+") as file:
        del file["data/demo_1/states"]
    with pytest.raises(UserError, match="demo_1 has no states"):
        convert(raw, tmp_path / "out.hdf5", "lift")
    with pytest.raises(UserError, match="which it is to be made of"):
        convert(raw, raw, "lift", overwrite=True)
    with pytest.raises(UserError, match=r"raw\.hdf5 is there already"):
        convert(collected, raw, "lift")
    with pytest.raises(UserError, match="--task is can, but the recordings are of Lift"):
        convert(collected, tmp_path / "out.hdf5", "can")
    assert not (tmp_path / "out.hdf5").exists()
