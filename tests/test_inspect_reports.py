"""`inspect` says what is in a file and what is wrong with it."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from commands.inspect import inspect
from common.errors import UserError
from datamodules.demonstrations import Demonstration, write_dataset
from datamodules.inspection import Span, survey

ENV_ARGS = {"env_name": "NutAssemblySquare", "env_version": "1.4.1", "type": 1, "env_kwargs": {}}


def demonstration(length: int, solved: bool) -> Demonstration:
    dones = np.zeros(length, dtype=np.int64)
    dones[-1] = solved
    return Demonstration(
        actions=np.tile(np.linspace(-1, 1, length)[:, None], 7),
        states=np.zeros((length, 45)),
        rewards=dones.astype(float),
        dones=dones,
        obs={"object": np.full((length, 14), length / 10)},
        model_file="<mujoco/>",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "square.hdf5"
    demonstrations = [demonstration(10, True), demonstration(20, True), demonstration(40, False)]
    masks = {"train": ["demo_0", "demo_1"], "valid": ["demo_2", "demo_9"]}
    write_dataset(target, demonstrations, ENV_ARGS, masks, source="scripted expert, mixed, seed 0")
    return target


def test_a_survey_holds_the_files_figures(path: Path) -> None:
    report = survey(path)
    assert report.facts["task"] == "NutAssemblySquare"
    assert report.facts["simulator"] == "robosuite 1.4.1"
    assert report.facts["source"] == "scripted expert, mixed, seed 0"
    assert report.facts["demonstrations"] == "3"
    assert report.facts["transitions"].startswith("70 ")
    assert report.facts["lengths"] == "mean 23.3, median 20, 10 to 40"
    assert report.facts["success"].startswith("66.7%")
    assert report.spans["actions"] == Span(7, -1.0, 1.0)
    assert report.spans["obs/object"] == Span(14, 1.0, 4.0)
    assert report.masks == {"train": (2, 2), "valid": (2, 1)}
    assert report.problems == []


def test_everything_is_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(path)
    printed = capsys.readouterr().out
    for text in (
        "NutAssemblySquare",
        "1.4.1",
        "70",
        "obs/object",
        "14",
        "train",
        "valid",
        "66.7%",
        "no problems found",
    ):
        assert text in printed
    assert "mask/valid names 2" in printed


def test_every_problem_is_printed_and_the_command_fails(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(path, "r+") as file:
        file["data/demo_0/actions"][0, 0] = np.inf
        file["data/demo_1/obs/object"][0, 0] = np.nan
        file["data/demo_2"].attrs["num_samples"] = 12
    with pytest.raises(UserError, match="2 problems"):
        inspect(path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "demo_0/actions has 1 values that are NaN or infinite" in printed
    assert "demo_1/obs/object has 1 values that are NaN" in printed
    assert "demo_2: num_samples says 12, but there are 40 actions" in printed


@pytest.mark.parametrize("stated", [True, False], ids=["by the header", "by the values"])
def test_shaped_rewards_are_no_success(tmp_path: Path, stated: bool) -> None:
    env_args = {**ENV_ARGS, "env_kwargs": {"reward_shaping": True} if stated else {}}
    unsolved = demonstration(10, False)
    shaped = dataclasses.replace(unsolved, rewards=np.full(10, 0.3) if stated else np.linspace(0, 0.3, 10))
    write_dataset(tmp_path / "dense.hdf5", [shaped], env_args, {})
    assert survey(tmp_path / "dense.hdf5").facts["success"].startswith("not stated (shaped rewards")


def test_a_file_that_does_not_open_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        inspect(tmp_path / "nowhere.hdf5")


def test_a_page_shows_values_ways_and_every_problem(path: Path, tmp_path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["data/demo_1/obs/object"][3, 0] = np.nan
        for name, length in (("demo_0", 10), ("demo_1", 20), ("demo_2", 40)):
            file[f"data/{name}/obs/robot0_eef_pos"] = np.linspace(0, 1, 3 * length).reshape(length, 3)
    page = tmp_path / "square.html"
    with pytest.raises(UserError, match="1 problems"):
        inspect(path, output=page)
    text = page.read_text()
    assert "demo_1/obs/object has 1 values that are NaN" in text
    assert "The hand&#39;s ways: obs/robot0_eef_pos" in text
    # A healthy value has a histogram, as have the healthy values of the spoilt array: 7 actions, 14 and 3 observations.
    assert text.count('class="spark"') == 24
    assert "mask/valid names 2" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [({"output": Path("page.txt")}, "--output is page.txt"), ({"frames": True}, "--output page.html")],
)
def test_a_page_that_cannot_be_is_refused(path: Path, words: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        inspect(path, **words)
