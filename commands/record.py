"""`record`: one MP4 per episode."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from commands.first_words import played, say_next
from commands.simulation import check_seed, players
from common.errors import UserError
from envs.pool import Capture, EnvPool
from rollouts.agents import NoiseAgent, NoiseRecorder
from rollouts.loop import run_episodes
from rollouts.recording import Take, write_animation, write_video
from rollouts.simulation import check_fits


def record(
    checkpoint: Path,
    output: Path,
    sac: Path | None = None,
    compare: bool = False,
    n_episodes: int = 3,
    ddim_steps: int | None = None,
    seed: int = 0,
    noise_scale: float | None = None,
    horizon: int | None = None,
    task: str | None = None,
    size: int = 512,
    network_module: str | None = None,
    first: int = 0,
    animation: bool = False,
) -> None:
    """Record a policy: ep01.mp4, ep02.mp4, ... with task, step count and outcome in the picture.

    A bar shows the size of the noise behind each action chunk beside that of N(0, I).

    Args:
        checkpoint: exported policy (.safetensors) or Lightning checkpoint (.ckpt, its EMA weights).
        output: folder for the videos.
        sac: archive of a trained SAC; records the steered policy.
        compare: with --sac: the base and the steered policy side by side, from the same initial states.
        n_episodes: episodes; episode i starts from the state drawn by (seed, i).
        ddim_steps: denoising steps; the policy's own by default, with --sac those it was trained with.
        seed: of the initial states and the noise.
        noise_scale: the base policy samples w ~ s N(0, I); the policy's own s by default, which is 1 unless it was
            trained with another --model.diffusion.noise_scale.
        horizon: env steps before an episode counts as failed; the task's own by default, with --sac the one that it was
            trained with.
        task: lift, can, square, tool_hang or transport; only for a checkpoint whose data carried no env_args.
        size: height and width of a picture in pixels.
        network_module: module of the checkpoint's network, where that is not one of this project's.
        first: number of the first episode, from 0 on.
        animation: ep01.webp, ... in place of videos: small, at twice real time, for pages without a player.
    """
    if first < 0:
        raise UserError(f"--first is {first}: expected 0 or more")
    if n_episodes < 1:
        raise UserError(f"--n_episodes is {n_episodes}: expected at least 1")
    if compare and sac is None:
        raise UserError("--compare shows the base beside the steered policy: give the latter's archive by --sac")
    if noise_scale is not None and sac is not None and not compare:
        raise UserError("--noise_scale is the base policy's, which --sac alone does not show: give --compare too")
    check_size(size)
    check_seed(seed)
    policy, agents, _, name, env_spec = players(
        checkpoint, sac, ddim_steps, noise_scale, horizon, task, network_module, render_size=(size, size)
    )
    shown = agents if compare else dict([list(agents.items())[-1]])
    episodes = range(first, first + n_episodes)
    with EnvPool(env_spec, n_envs=1) as pool:
        check_fits(policy.spec, pool)
        for index, takes in play(shown, pool, seed, episodes, name):
            path = output / f"ep{index + 1:02d}{'.webp' if animation else '.mp4'}"
            (write_animation if animation else write_video)(path, takes)
            print(f"wrote {path}: {summary(takes)}")
    say_next("count its successes", "evaluate", *played(checkpoint, sac, policy.spec, name))


def play(
    agents: Mapping[str, NoiseAgent], pool: EnvPool, seed: int, indices: Sequence[int], task: str
) -> Iterator[tuple[int, list[Take]]]:
    """Play episodes of ``seed`` with each agent in turn: the episode's number and a take per agent.

    One at a time: an episode's frames may be gigabytes.
    """
    with Progress(transient=True, disable=not Console().is_terminal) as progress:  # an episode may take minutes
        chunks = -(-pool.spec.horizon // pool.spec.pred_horizon)  # of an episode, at most
        bar, through = progress.add_task("playing", total=chunks * len(indices) * len(agents)), 0
        for index in indices:
            takes = []
            for label, agent in agents.items():
                recorder = NoiseRecorder(agent, lambda: progress.advance(bar))
                result = run_episodes(recorder, pool, seed, [index], Capture(frames_every=1))[0]
                assert result.frames is not None
                outcome, title = "SUCCESS" if result.success else "FAILURE", f"{task}, {label}"
                takes.append(
                    Take(title, result.frames, outcome, result.success, recorder.chosen, pool.spec.pred_horizon)
                )
                through += chunks
                progress.update(bar, completed=through)
            yield index, takes


def summary(takes: Sequence[Take]) -> str:
    """How each take ended, in words."""
    ends = [f"{take.outcome.lower()} after {len(take.frames) - 1} steps" for take in takes]
    if len(takes) == 1:
        return ends[0]
    return "; ".join(f"{take.title.split(', ')[-1]} {end}" for take, end in zip(takes, ends, strict=True))


def check_size(size: int) -> None:
    """Raises UserError for a picture that ffmpeg would have to scale, or that no GL library draws."""
    if not 64 <= size <= 2048 or size % 16:
        raise UserError(f"--size is {size}: expected a multiple of 16 from 64 to 2048")
