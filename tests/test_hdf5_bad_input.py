"""Each way in which a data file can be wrong ends in one UserError that says what to mend."""

import dataclasses
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.errors import UserError
from datamodules.demonstrations import Demonstration, write_dataset
from datamodules.hdf5 import DatasetFile, load_arrays
from datamodules.inspection import survey
from tests.hdf5_problems import problems

ENV_ARGS = {"env_name": "Lift", "env_version": "1.4.1", "type": 1, "env_kwargs": {"robots": ["Panda"]}}
OBS_DIMS = {"robot0_eef_pos": 3, "object": 10}


def demonstration(length: int, seed: int = 0) -> Demonstration:
    rng = np.random.default_rng(seed)
    obs = {key: rng.normal(size=(length + 1, dim)) for key, dim in OBS_DIMS.items()}
    dones = np.zeros(length, dtype=np.int64)
    dones[-1] = 1
    return Demonstration(
        actions=rng.uniform(-1, 1, size=(length, 7)),
        states=rng.normal(size=(length, 32)),
        rewards=dones.astype(np.float64),
        dones=dones,
        obs={key: values[:-1] for key, values in obs.items()},
        next_obs={key: values[1:] for key, values in obs.items()},
        model_file="<mujoco/>",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound file of three demonstrations."""
    target = tmp_path / "demos.hdf5"
    masks = {"train": ["demo_0", "demo_1"], "valid": ["demo_2"]}
    write_dataset(target, [demonstration(9, i) for i in range(3)], ENV_ARGS, masks)
    return target


def edit(path: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replace(file: h5py.File, key: str, values: object) -> None:
    del file[key]
    file[key] = values


def message_of(path: Path, obs_keys: tuple[str, ...] = tuple(OBS_DIMS), filter_key: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_arrays(path, obs_keys, filter_key)
    return str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    message = message_of(tmp_path / "nowhere.hdf5")
    assert "nowhere.hdf5" in message
    assert "no such file" in message


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "no such file" in message_of(tmp_path)


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04 not hdf5", b"\x80\x04\x95cos\nsystem\n"])
def test_a_file_that_is_not_hdf5(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x.hdf5").write_bytes(body)
    assert "cannot be opened as hdf5" in message_of(tmp_path / "x.hdf5")


def test_truncated_file(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = message_of(path)
    assert "truncated" in message
    assert "download" in message


def test_bytes_destroyed_inside_the_file(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/actions"]
        file.create_dataset("data/demo_0/actions", data=np.zeros((9, 7)), compression="gzip")
        offset = file["data/demo_0/actions"].id.get_chunk_info(0).byte_offset
    with path.open("rb+") as raw:
        raw.seek(offset)
        raw.write(b"\xff" * 16)
    assert "demo_0/actions cannot be read" in message_of(path)


def test_whatever_bytes_are_destroyed_the_answer_is_a_clear_error_or_the_data(path: Path) -> None:
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        spoiled = bytearray(whole)
        for position in rng.integers(4096, size=3):  # where the structures lie; the numbers follow
            spoiled[position] = rng.integers(256)
        path.write_bytes(spoiled)
        refused += bool(problems(path))
    assert refused > 10


def test_without_data_group(path: Path) -> None:
    edit(path, lambda file: file.move("data", "records"))
    message = message_of(path)
    assert "no group 'data'" in message
    assert "records" in message


def test_data_as_an_array(path: Path) -> None:
    edit(path, lambda file: replace(file, "data", np.zeros(3)))
    assert "no group 'data'" in message_of(path)


def test_no_demonstrations(path: Path) -> None:
    edit(path, lambda file: [file.__delitem__(f"data/demo_{i}") for i in range(3)])
    assert "holds no demonstrations" in message_of(path)


def test_missing_obs_key_lists_those_there(path: Path) -> None:
    message = message_of(path, ("robot0_eef_pos", "objcet"))
    assert "demo_0/obs/objcet is missing" in message
    assert "object, robot0_eef_pos" in message


def test_obs_key_missing_in_one_demonstration_only(path: Path) -> None:
    edit(path, lambda file: file.__delitem__("data/demo_1/obs/object"))
    message = message_of(path)
    assert "demo_1/obs/object is missing" in message
    assert "Those there: robot0_eef_pos" in message


def test_raw_file_without_obs(path: Path) -> None:
    edit(path, lambda file: [file.__delitem__(f"data/demo_{i}/obs") for i in range(3)])
    assert "no group 'obs'" in message_of(path)


@pytest.mark.parametrize("shape", [(9,), (9, 4), (9, 8, 8, 3)])
def test_mis_shaped_obs_key(path: Path, shape: tuple[int, ...]) -> None:
    edit(path, lambda file: replace(file, "data/demo_1/obs/object", np.zeros(shape)))
    message = message_of(path)
    assert f"demo_1/obs/object has shape {shape}" in message
    assert "(T, 10)" in message


def test_actions_of_another_dimension_in_one_demonstration(path: Path) -> None:
    edit(path, lambda file: replace(file, "data/demo_2/actions", np.zeros((9, 6))))
    message = message_of(path)
    assert "demo_2/actions has shape (9, 6)" in message
    assert "(T, 7)" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("key", ["actions", "obs/object"])
def test_values_that_are_not_finite(path: Path, key: str, value: float) -> None:
    edit(path, lambda file: file[f"data/demo_1/{key}"].__setitem__((3, 2), value))
    message = message_of(path)
    assert f"demo_1/{key} has 1 values that are NaN or infinite" in message


def test_motions_beyond_the_controllers_range_are_clipped_and_counted(path: Path) -> None:
    edit(path, lambda file: file["data/demo_1/actions"].__setitem__((3, slice(2, 4)), [-1.5, 2.0]))
    with pytest.warns(UserWarning, match=r"2 action values \(1\.06%\) lie outside \[-1, 1\]: they are clipped"):
        demonstrations = load_arrays(path, tuple(OBS_DIMS))
    np.testing.assert_array_equal(demonstrations["demo_1"].actions[3, 2:4], [-1, 1])
    expected = demonstration(9, 1).actions
    np.testing.assert_array_equal(np.delete(demonstrations["demo_1"].actions, 3, 0), np.delete(expected, 3, 0))
    assert problems(path) == []
    assert any("2 action values" in note for note in survey(path).notes)


@pytest.mark.parametrize(
    "controller",
    [
        {"type": "OSC_POSE", "control_delta": False},
        {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE", "input_type": "absolute"}}},
    ],
    ids=["robosuite 1.4", "robosuite 1.5"],
)
def test_absolute_poses_need_no_bound(tmp_path: Path, controller: dict[str, object]) -> None:
    absolute = {**ENV_ARGS, "env_kwargs": {"robots": ["Panda"], "controller_configs": controller}}
    demo = dataclasses.replace(demonstration(9), actions=demonstration(9).actions * 3)
    write_dataset(tmp_path / "absolute.hdf5", [demo], absolute, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = load_arrays(tmp_path / "absolute.hdf5", tuple(OBS_DIMS))["demo_0"]
    np.testing.assert_array_equal(read.actions, demo.actions)
    assert survey(tmp_path / "absolute.hdf5").facts["actions"] == "absolute poses"


def test_actions_rounded_through_float32_are_accepted(path: Path) -> None:
    edit(path, lambda file: file["data/demo_1/actions"].__setitem__((3, 2), 1 + 1e-7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_arrays(path, tuple(OBS_DIMS))) == 3


def test_rewards_as_a_column_are_accepted(path: Path) -> None:
    edit(path, lambda file: replace(file, "data/demo_1/rewards", file["data/demo_1/rewards"][:][:, None]))
    np.testing.assert_array_equal(load_arrays(path, tuple(OBS_DIMS))["demo_1"].rewards, demonstration(9, 1).rewards)
    assert problems(path) == []


def test_what_a_command_does_not_read_cannot_stop_it(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        for i in range(3):
            file[f"data/demo_{i}/obs/agentview_image"] = np.zeros((9, 8, 8, 3), np.uint8)
        replace(file, "data/demo_1/next_obs/object", np.zeros((9, 4)))
        file["data/demo_2/states"][3] = np.nan

    edit(path, spoil)
    with DatasetFile(path) as file:
        assert len(file.read("demo_1", tuple(OBS_DIMS), ())) == 9
        assert len(file.read("demo_2", tuple(OBS_DIMS), ("rewards",))) == 9
        with pytest.raises(UserError, match="demo_2/states"):
            file.read("demo_2", tuple(OBS_DIMS), ("states",))
    report = survey(path)
    assert [problem for problem in report.problems if "demo_2/states" not in problem] == []
    assert any("obs/agentview_image has shape (9, 8, 8, 3)" in note for note in report.notes)
    assert any("demo_1/next_obs/object has shape (9, 4)" in note for note in report.notes)


def test_a_file_that_another_program_is_writing(path: Path) -> None:
    script = f"import h5py, sys; file = h5py.File({str(path)!r}, 'r+'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        message = message_of(path)
        writer.communicate()
    assert "is open for writing in another program" in message
    assert len(load_arrays(path, tuple(OBS_DIMS))) == 3


@pytest.mark.parametrize("key", ["actions", "obs/object", "rewards", "states"])
def test_arrays_of_unequal_length(path: Path, key: str) -> None:
    edit(path, lambda file: replace(file, f"data/demo_1/{key}", file[f"data/demo_1/{key}"][:-1]))
    message = message_of(path)
    assert "demo_1 has arrays of unequal length" in message
    assert f"'{key}': 8" in message


def test_an_empty_episode(path: Path) -> None:
    def empty(file: h5py.File) -> None:
        for key in (
            "actions",
            "states",
            "rewards",
            "dones",
            *(f"{o}/{k}" for o in ("obs", "next_obs") for k in OBS_DIMS),
        ):
            replace(file, f"data/demo_1/{key}", file[f"data/demo_1/{key}"][:0])

    edit(path, empty)
    assert "demo_1 is empty" in message_of(path)


def test_words_in_place_of_numbers(path: Path) -> None:
    edit(path, lambda file: replace(file, "data/demo_0/actions", np.full((9, 7), b"up")))
    assert "Expected numbers" in message_of(path)


def test_filter_key_not_there_lists_those_there(path: Path) -> None:
    message = message_of(path, filter_key="20_percent")
    assert "no filter key '20_percent'" in message
    assert "train, valid" in message


def test_filter_key_that_names_only_absent_demonstrations(path: Path) -> None:
    edit(path, lambda file: file.create_dataset("mask/other", data=np.array([b"demo_7", b"demo_8"])))
    assert "names 2 demonstrations, none of which is there" in message_of(path, filter_key="other")


def test_masks_that_name_absent_demonstrations_are_tolerated_and_counted(path: Path) -> None:
    edit(path, lambda file: replace(file, "mask/train", np.array([b"demo_1", b"demo_40", b"demo_0"])))
    with DatasetFile(path) as file:
        assert file.names("train") == ["demo_0", "demo_1"]
        assert file.absent("train") == 1
        assert any("mask/train names 3" in note and "1 are not" in note for note in file.notes())


def test_missing_header_attributes_are_tolerated(path: Path) -> None:
    def strip(file: h5py.File) -> None:
        del file["data"].attrs["env_args"], file["data"].attrs["total"]
        file["data/demo_0"].attrs["num_samples"] = "9"

    edit(path, strip)
    assert problems(path) == []
    with DatasetFile(path) as file:
        assert file.env_args is None
        assert len(file.read("demo_0")) == 9
        assert not any("num_samples" in note for note in file.notes())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'env_name': 'Lift'}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "names no environment"),
        ('{"env_name": 3}', "names no environment"),
        ('{"env_name": "Lift", "env_kwargs": "robots"}', "not an object"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_malformed_env_args(path: Path, text: str | bytes, expected: str) -> None:
    edit(
        path,
        lambda file: file["data"].attrs.__setitem__("env_args", np.bytes_(text) if isinstance(text, bytes) else text),
    )
    message = message_of(path)
    assert "env_args" in message
    assert expected in message


def test_an_array_too_large_for_any_memory(path: Path) -> None:
    def swell(file: h5py.File) -> None:
        del file["data/demo_0/actions"]
        file["data/demo_0"].create_dataset("actions", shape=(10**12, 7), chunks=(1024, 7), dtype="f8")

    edit(path, swell)
    assert path.stat().st_size < 10**7
    assert "demo_0/actions has shape (1000000000000, 7)" in message_of(path)


def test_a_link_out_of_the_file_is_not_followed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.hdf5"
    write_dataset(other, [demonstration(9)], ENV_ARGS, {})

    def link(file: h5py.File) -> None:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = h5py.ExternalLink(str(other), "data/demo_0/actions")

    edit(path, link)
    assert "leads to another file" in message_of(path)


def test_every_fault_is_listed_at_once(path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["data/demo_0/actions"][2, 2] = np.nan
        file["data/demo_1/obs/object"][2, 2] = np.nan
        del file["data/demo_2/obs/robot0_eef_pos"]

    edit(path, spoil)
    found = problems(path)
    assert [name in problem for name, problem in zip(("demo_0", "demo_1", "demo_2"), found, strict=False)] == [True] * 3


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write_dataset(tmp_path / "file" / "demos.hdf5", [demonstration(5)], ENV_ARGS, {})


def test_an_interrupted_write_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()

    def demonstrations():  # type: ignore[no-untyped-def]
        yield demonstration(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(path, demonstrations(), ENV_ARGS, {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_round_trip_keeps_every_array_in_double_precision(path: Path) -> None:
    with DatasetFile(path) as file:
        assert file.env_args == ENV_ARGS == json.loads(json.dumps(file.env_args))
        assert file.obs_dims() == {"object": 10, "robot0_eef_pos": 3}
        assert file.names() == ["demo_0", "demo_1", "demo_2"]
        read, written = file.read("demo_1"), demonstration(9, 1)
    for key in ("actions", "states", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(read, key), getattr(written, key))
        assert getattr(read, key).dtype == getattr(written, key).dtype
    for part in ("obs", "next_obs"):
        for key in OBS_DIMS:
            np.testing.assert_array_equal(getattr(read, part)[key], getattr(written, part)[key])
    assert read.model_file == "<mujoco/>"


def test_demonstrations_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d.hdf5", [demonstration(5, i) for i in range(12)], ENV_ARGS, {"a": ["demo_10", "demo_9"]})
    with DatasetFile(tmp_path / "d.hdf5") as file:
        assert file.names() == [f"demo_{i}" for i in range(12)]
        assert file.names("a") == ["demo_9", "demo_10"]


def test_the_real_file_reads_as_it_is() -> None:
    real = Path(__file__).resolve().parents[2] / "shared" / "data" / "ph_lift_low_dim.hdf5"
    if not real.exists():
        pytest.skip(f"{real} is not here")
    assert problems(real) == []
    with DatasetFile(real) as file:
        assert file.env_args is None
        assert file.names("train") == ["demo_1"]
        assert (file.absent("train"), file.absent("valid")) == (179, 19)
        assert [len(file.read(name)) for name in file.names()] == [59, 58]
        with pytest.raises(UserError, match="none of which is there"):
            file.names("20_percent")
