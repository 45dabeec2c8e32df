"""Videos are whole or not there."""

import resource
from pathlib import Path

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from rollouts.recording import CONTROL_RATE, Take, write_animation, write_video

LENGTH = 150  # more than the pipe to ffmpeg holds


def episode(length: int = LENGTH) -> Take:
    frames = list(np.random.default_rng(0).integers(0, 255, (length + 1, 96, 96, 3), dtype=np.uint8))
    return Take("lift, base", frames, "SUCCESS", good=True)


def test_a_video_holds_every_step_and_a_second_of_the_outcome(tmp_path: Path) -> None:
    write_video(tmp_path / "ep01.mp4", [episode()])
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "ep01.mp4"))
    assert frames == LENGTH + 1 + CONTROL_RATE
    assert seconds == pytest.approx(frames / CONTROL_RATE, abs=0.1)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_video_that_does_not_fit_on_the_disk_leaves_the_earlier_one(tmp_path: Path, share: float) -> None:
    path = tmp_path / "ep01.mp4"
    write_video(path, [episode()])
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(whole)), limits[1]))  # holds for ffmpeg too
    try:
        with pytest.raises(UserError, match=r"cannot write .*ep01\.mp4"):
            write_video(path, [episode()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["ep01.mp4"]


def test_takes_side_by_side_wait_for_the_longest_one(tmp_path: Path) -> None:
    write_video(tmp_path / "both.mp4", [episode(4), episode(9)])
    frames = imageio.imread(tmp_path / "both.mp4")
    assert frames.shape == (10 + CONTROL_RATE, 96, 192, 3)


def test_an_animation_plays_at_twice_real_time_for_ever(tmp_path: Path) -> None:
    write_animation(tmp_path / "ep01.webp", [episode(40), episode(20)])
    with Image.open(tmp_path / "ep01.webp") as animation:
        assert animation.size == (192, 96)
        assert animation.info["loop"] == 0
        shown = []
        for number in range(animation.n_frames):  # type: ignore[attr-defined]
            animation.seek(number)
            animation.load()
            shown.append(animation.info["duration"])
        assert shown[:10] == [100] * 10
        assert sum(shown) == 2100, "40 steps and two seconds of the end; pictures that are alike are one"


def test_the_noise_bar_is_as_long_as_the_noise() -> None:
    black = np.zeros((240, 240, 3), np.uint8)

    def blue(size: float) -> int:
        take = Take("", [black, black], "", None, noise=[np.full((4, 7), size)])
        picture = take.picture(0).astype(int)
        return int((picture[..., 2] - picture[..., 0] > 100).any(axis=0).sum())  # columns that the bar covers

    assert blue(1.0) == pytest.approx(40, abs=1)  # a sixth of the picture
    assert blue(0.5) == pytest.approx(20, abs=1)
    assert blue(9.0) == pytest.approx(80, abs=1), "cut where the bar's ground ends"
    plain = Take("", [black, black], "", None).picture(0).astype(int)
    assert not (plain[..., 2] - plain[..., 0] > 100).any()
