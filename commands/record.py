"""`record`: one MP4 per episode."""

from pathlib import Path

from commands.first_words import say_next
from commands.simulation import agents_of, check_seed, horizon_of, load_checkpoint, steps_of
from common.errors import UserError
from envs.pool import Capture, EnvPool
from rollouts.loop import run_episodes
from rollouts.recording import write_video
from rollouts.simulation import check_fits, simulation_of


def record(
    checkpoint: Path,
    output: Path,
    sac: Path | None = None,
    n_episodes: int = 3,
    ddim_steps: int | None = None,
    seed: int = 0,
    noise_scale: float | None = None,
    horizon: int | None = None,
    task: str | None = None,
    size: int = 384,
    network_module: str | None = None,
) -> None:
    """Record a policy: ep01.mp4, ep02.mp4, ... with step count and outcome in the picture.

    Args:
        checkpoint: exported policy (.safetensors) or Lightning checkpoint (.ckpt, its EMA weights).
        output: folder for the videos.
        sac: archive of a trained SAC; records the steered policy.
        n_episodes: episodes; episode i starts from the state drawn by (seed, i).
        ddim_steps: denoising steps; the policy's own by default, with --sac those it was trained with.
        seed: of the initial states and the noise.
        noise_scale: the base policy samples w ~ s N(0, I); the policy's own s by default, which is 1 unless it was
            trained with another --model.diffusion.noise_scale.
        horizon: env steps before an episode counts as failed; the task's own by default, with --sac the one that it was
            trained with.
        task: lift, can or square; only for a checkpoint whose data carried no env_args.
        size: height and width of the video in pixels.
        network_module: module of the checkpoint's network, where that is not one of this project's.
    """
    if n_episodes < 1:
        raise UserError(f"--n_episodes is {n_episodes}: expected at least 1")
    if not 64 <= size <= 2048 or size % 16:
        raise UserError(f"--size is {size}: expected a multiple of 16 from 64 to 2048")
    check_seed(seed)
    policy = load_checkpoint(checkpoint, ddim_steps, network_module)
    agent = list(agents_of(policy, sac, steps_of(policy, sac, ddim_steps), noise_scale).values())[-1]
    _, env_spec = simulation_of(policy.spec, task, horizon_of(sac, horizon), render_size=(size, size))

    with EnvPool(env_spec, n_envs=1) as pool:
        check_fits(policy.spec, pool)
        for index in range(n_episodes):  # one at a time: an episode's frames may be gigabytes
            result = run_episodes(agent, pool, seed, [index], Capture(frames_every=1))[0]
            path = output / f"ep{index + 1:02d}.mp4"
            write_video(path, result)
            print(f"wrote {path}: {'success' if result.success else 'failure'} after {result.length} steps")
    say_next("count its successes", "evaluate", "--checkpoint", checkpoint, *(["--sac", sac] if sac else []))
