"""Demonstrations as videos, and base and steered policy side by side: rendered for real."""

import re
from pathlib import Path

import imageio.v3 as imageio
import pytest

from cli import COMMANDS
from commands.front_door import run
from datamodules.hdf5 import DatasetFile
from envs.rendering import choose_gl
from tests.test_evaluate_and_record import save_policy
from tests.training_toy import write_toy_dataset
from tests.worker_threads import worker_threads

pytestmark = pytest.mark.skipif(choose_gl() is None, reason="neither EGL nor OSMesa is installed: nothing to render")
HELD = 20  # frames of the outcome


def test_a_demonstration_beside_its_own_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, videos = tmp_path / "lift.hdf5", tmp_path / "videos"
    with worker_threads():
        assert run(COMMANDS, ["collect", "--task=lift", "--n_demos=2", "--n_envs=1", f"--output={data}"]) == 0
    line = ["playback", f"--dataset={data}", "--demos=1", "--actions", "--size=64", f"--output={videos}"]
    assert run(COMMANDS, line) == 0
    with DatasetFile(data) as file:
        length = len(file.read("demo_1"))
    frames = imageio.imread(videos / "demo_1.mp4")
    # The replay has a frame more: what comes of the last action, of which the file holds no state.
    assert frames.shape == (length + 1 + HELD, 64, 128, 3)
    assert frames.std() > 10, "the picture is blank"
    assert re.search(rf"demo_1\.mp4: {length} steps; the replay stays within", capsys.readouterr().out)
    page = tmp_path / "lift.html"
    assert run(COMMANDS, ["inspect", f"--dataset={data}", f"--output={page}", "--frames"]) == 0
    assert page.read_text().count("data:image/jpeg;base64,") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--demos=0,9"], r"has no demo_9. It holds 4, from demo_0 to demo_3"),
        (["--demos=first"], r"--demos is first: expected numbers"),
        (["--demos=0,3-1"], r"--demos is 0,3-1: expected numbers"),
        (["--size=50"], r"--size is 50"),
    ],
)
def test_mistakes_in_a_playback(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_toy_dataset(tmp_path / "toy.hdf5")
    assert run(COMMANDS, ["playback", f"--dataset={data}", f"--output={tmp_path}", *words]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_comparing_needs_two_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_policy(tmp_path / "lift.safetensors")
    assert run(COMMANDS, ["record", f"--checkpoint={checkpoint}", "--compare", f"--output={tmp_path}"]) == 2
    assert "give the latter's archive by --sac" in capsys.readouterr().err
