"""Episodes as MP4 files or small animations, alone or several side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.errors import UserError
from common.files import atomic_path

CONTROL_RATE = 20  # env steps per second: a video of every step plays in real time
HOLD_SECONDS = 1.0
STRIDE, PICTURES_PER_SECOND = 4, 10  # of an animation: twice real time
GREEN, RED, BLACK, WHITE, GREY = (27, 128, 70), (190, 45, 40), (0, 0, 0), (255, 255, 255), (120, 120, 120)


@dataclass(frozen=True)
class Take:
    """One episode, as it is to be shown.

    Args:
        title: what plays, e.g. the task and the agent.
        frames: (H, W, 3) uint8 each: of the initial state and after each env step.
        outcome: the last frame's mark.
        good: whether that is green, or red; None: neither.
        noise: (H, A) of each action chunk, for the bar that compares it with N(0, I); empty: no bar.
        chunk: env steps of a chunk.
    """

    title: str
    frames: Sequence[np.ndarray]
    outcome: str
    good: bool | None
    noise: Sequence[np.ndarray] = ()
    chunk: int = 1

    def picture(self, step: int) -> np.ndarray:
        """The frame after ``step`` env steps; the last one, with the outcome, from its end on."""
        ended = step >= len(self.frames) - 1
        step = min(step, len(self.frames) - 1)
        image = Image.fromarray(self.frames[step])
        size = max(11, image.height // 24)
        _write(image, f"{self.title}   step {step}".strip(), (size // 2, size // 2), size, BLACK)
        if ended:
            colour = GREY if self.good is None else GREEN if self.good else RED
            _write(image, self.outcome, (size // 2, size // 2 + round(1.7 * size)), size, colour)
        if len(self.noise):
            _draw_noise(image, self.noise[min(max(step - 1, 0) // self.chunk, len(self.noise) - 1)], size)
        return np.asarray(image)


def write_video(path: Path, takes: Sequence[Take]) -> None:
    """Write episodes side by side at the control rate.

    One that ends earlier waits on its last frame, as all of them do for a second.

    Args:
        path: the .mp4 file; it appears whole or not at all.
        takes: of one size.

    Raises:
        UserError: the video could not be written whole.
    """
    n_frames = max(len(take.frames) for take in takes) + round(HOLD_SECONDS * CONTROL_RATE)
    height, width, _ = takes[0].frames[0].shape
    with atomic_path(path) as partial:
        # The partial file's name has no .mp4 for ffmpeg to go by.
        writer = imageio_ffmpeg.write_frames(
            str(partial), (width * len(takes), height), fps=CONTROL_RATE, quality=7, output_params=["-f", "mp4"]
        )
        try:
            writer.send(None)
            for frame in _frames(takes, n_frames):
                writer.send(np.ascontiguousarray(frame))
        except OSError as error:  # ffmpeg is gone: a broken pipe, without an errno
            raise UserError(f"cannot write {path}: ffmpeg stopped; above is what it said. Is the disk full?") from error
        writer.close()
        _check_whole(partial, n_frames, path)


def write_animation(path: Path, takes: Sequence[Take]) -> None:
    """Write episodes side by side as an animated WebP that plays over and over, in a page without a player.

    It shows every fourth env step, at twice real time: some hundred kilobytes.

    Args:
        path: the .webp file; it appears whole or not at all.
        takes: of one size.
    """
    n_frames = max(len(take.frames) for take in takes) + round(2 * HOLD_SECONDS * CONTROL_RATE)
    first, *others = (Image.fromarray(frame) for frame in _frames(takes, n_frames, STRIDE))
    with atomic_path(path) as partial:
        first.save(
            partial,
            "WEBP",
            save_all=True,
            append_images=others,
            duration=round(1000 / PICTURES_PER_SECOND),
            loop=0,
            quality=60,
        )


def _frames(takes: Sequence[Take], n_frames: int, stride: int = 1) -> Iterator[np.ndarray]:
    for step in range(0, n_frames, stride):
        yield np.concatenate([take.picture(step) for take in takes], axis=1)


def _check_whole(video: Path, n_frames: int, target: Path) -> None:
    # ffmpeg's exit status is not passed on: on a full disk it leaves a file without an index, or without its end.
    try:
        found = imageio_ffmpeg.count_frames_and_secs(str(video))[0]
    except RuntimeError:
        found = 0
    if found != n_frames:
        raise UserError(f"cannot write {target}: ffmpeg wrote {found} of {n_frames} frames. Is the disk full?")


def _write(image: Image.Image, text: str, at: tuple[int, int], size: int, ground: tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = draw.textbbox(at, text, font=font)
    draw.rectangle((left - size // 3, top - size // 4, right + size // 3, bottom + size // 4), fill=ground)
    draw.text(at, text, font=font, fill=WHITE)


def _draw_noise(image: Image.Image, noise: np.ndarray, size: int) -> None:
    """A bar as long as the noise's root mean square, over the range in which 95 % of N(0, I) fall."""
    rms = float(np.sqrt(np.mean(np.square(noise))))
    spread = 1.96 / np.sqrt(2 * noise.size)  # of the root mean square of that many standard normals
    unit = image.width // 6
    left, bottom = size // 2, image.height - size // 2
    top = bottom - size // 2
    draw = ImageDraw.Draw(image)
    text, font = f"|noise| {rms:.2f}   N(0, I): 1", ImageFont.load_default(size=round(0.85 * size))
    right = left + max(2 * unit, round(draw.textlength(text, font=font)))
    draw.rectangle((left - size // 4, top - 2 * size, right + size // 4, bottom + size // 4), fill=BLACK)
    draw.rectangle((left + unit * (1 - spread), top, left + unit * (1 + spread), bottom), fill=GREY)
    draw.rectangle((left, top + size // 8, left + unit * min(rms, 2.0), bottom - size // 8), fill=(80, 160, 255))
    draw.line((left + unit, top, left + unit, bottom), fill=WHITE)
    draw.text((left, top - round(1.6 * size)), text, font=font, fill=WHITE)
