"""Episodes as MP4 files."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.errors import UserError
from common.files import atomic_path
from rollouts.loop import EpisodeResult

CONTROL_RATE = 20  # env steps per second: a video of every step plays in real time
HOLD_SECONDS = 1.0


def write_video(path: Path, result: EpisodeResult) -> None:
    """Write one episode's frames, each marked with its step and the last with the outcome, held for a second.

    Args:
        path: the .mp4 file; it appears whole or not at all.
        result: an episode captured with a frame per env step.

    Raises:
        UserError: the video could not be written whole.
    """
    assert result.frames
    outcome = "SUCCESS" if result.success else "FAILURE"
    frames = [_marked(frame, f"step {step}") for step, frame in enumerate(result.frames)]
    last = _marked(result.frames[-1], f"step {result.length} {outcome}")
    frames += [last] * round(HOLD_SECONDS * CONTROL_RATE)
    height, width, _ = last.shape
    with atomic_path(path) as partial:
        # The partial file's name has no .mp4 for ffmpeg to go by.
        writer = imageio_ffmpeg.write_frames(
            str(partial), (width, height), fps=CONTROL_RATE, quality=7, output_params=["-f", "mp4"]
        )
        try:
            writer.send(None)
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
        except OSError as error:  # ffmpeg is gone: a broken pipe, without an errno
            raise UserError(f"cannot write {path}: ffmpeg stopped. Is the disk full?") from error
        writer.close()
        _check_whole(partial, len(frames), path)


def _check_whole(video: Path, n_frames: int, target: Path) -> None:
    # ffmpeg's exit status is not passed on: on a full disk it leaves a file without an index, or without its end.
    try:
        found = imageio_ffmpeg.count_frames_and_secs(str(video))[0]
    except RuntimeError:
        found = 0
    if found != n_frames:
        raise UserError(f"cannot write {target}: ffmpeg wrote {found} of {n_frames} frames. Is the disk full?")


def _marked(frame: np.ndarray, text: str) -> np.ndarray:
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(12, frame.shape[0] // 20))
    box = draw.textbbox((6, 4), text, font=font)
    draw.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), fill=(0, 0, 0))
    draw.text((6, 4), text, font=font, fill=(255, 255, 255))
    return np.asarray(image)
