"""Videos are whole or not there."""

import resource
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from common.errors import UserError
from rollouts.loop import EpisodeResult
from rollouts.recording import CONTROL_RATE, write_video

LENGTH = 150  # more than the pipe to ffmpeg holds


def episode() -> EpisodeResult:
    frames = list(np.random.default_rng(0).integers(0, 255, (LENGTH + 1, 96, 96, 3), dtype=np.uint8))
    return EpisodeResult(0, seed=0, success=True, length=LENGTH, total_reward=1.0, frames=frames)


def test_a_video_holds_every_step_and_a_second_of_the_outcome(tmp_path: Path) -> None:
    write_video(tmp_path / "ep01.mp4", episode())
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "ep01.mp4"))
    assert frames == LENGTH + 1 + CONTROL_RATE
    assert seconds == pytest.approx(frames / CONTROL_RATE, abs=0.1)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_video_that_does_not_fit_on_the_disk_leaves_the_earlier_one(tmp_path: Path, share: float) -> None:
    path = tmp_path / "ep01.mp4"
    write_video(path, episode())
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(whole)), limits[1]))  # holds for ffmpeg too
    try:
        with pytest.raises(UserError, match=r"cannot write .*ep01\.mp4"):
            write_video(path, episode())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["ep01.mp4"]
