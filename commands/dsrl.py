"""`dsrl`: steer a frozen diffusion policy by SAC in its noise space."""

import dataclasses
import os
from pathlib import Path

from commands.first_words import say_next
from common.errors import UserError
from common.files import atomic_path
from common.lock import run_lock
from dsrl.config import DemonstrationsConfig, DSRLConfig, EnvConfig, EvalConfig, LearnerConfig, WarmStartConfig


def dsrl(
    bc_checkpoint: Path,
    task: str | None = None,
    action_magnitude: float = 3.0,
    ddim_steps: int = 10,
    initial_steps: int = 10_000,
    train_steps: int = 100_000,
    utd: int = 5,
    seed: int = 0,
    output: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    network_module: str | None = None,
    learner: LearnerConfig = LearnerConfig(),  # noqa: B008 (a dataclass default is how jsonargparse makes a group)
    env: EnvConfig = EnvConfig(),  # noqa: B008
    warm_start: WarmStartConfig = WarmStartConfig(),  # noqa: B008
    demonstrations: DemonstrationsConfig = DemonstrationsConfig(),  # noqa: B008
    evaluation: EvalConfig = EvalConfig(),  # noqa: B008
) -> None:
    """Train SAC whose actions are the noise of a frozen diffusion policy.

    Args:
        bc_checkpoint: exported policy (.safetensors) or Lightning checkpoint (.ckpt, its EMA weights).
        task: lift, can or square; the checkpoint's own by default.
        action_magnitude: bound of every component of the noise.
        ddim_steps: denoising steps per chunk.
        initial_steps: env steps of the warm start, played by the frozen policy.
        train_steps: env steps after it.
        utd: updates per chunk.
        seed: of networks, episodes and draws.
        output: folder of the run; checkpoints/dsrl/TASK by default.
        resume: go on from the last saved state in the folder.
        device: cpu, cuda, or auto.
        network_module: module of the checkpoint's network, where that is not one of this project's.
        learner: networks and updates.
        env: environment and reward.
        warm_start: what happens before the actor acts.
        demonstrations: demonstrations in the replay buffer.
        evaluation: evaluation during and after training.
    """
    import torch

    from commands.simulation import check_seed, load_checkpoint
    from dsrl.archive import read_steering
    from dsrl.build import check_config
    from dsrl.report import write_report
    from dsrl.trainer import Trainer
    from envs.pool import EnvPool, available_cpus
    from rollouts.simulation import check_fits, simulation_of

    check_seed(seed)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not (device.split(":")[0] == "cuda" and torch.cuda.is_available()):
        raise UserError(
            f"--device is {device}: expected auto, cpu or cuda, and PyTorch finds "
            f"{torch.cuda.device_count() or 'no'} GPU here"
        )
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # these updates are small, and the workers want the other CPUs
    policy = load_checkpoint(bc_checkpoint, ddim_steps, network_module).to(device)
    name, env_spec = simulation_of(policy.spec, task, env.horizon)
    folder = output or Path("checkpoints") / "dsrl" / (name or "custom")
    config = DSRLConfig(
        name,
        action_magnitude,
        ddim_steps,
        initial_steps,
        train_steps,
        utd,
        seed,
        learner,
        env,
        warm_start,
        demonstrations,
        evaluation,
    )
    check_config(config)
    with run_lock(folder):
        state = folder / "sac_last.zip"
        if not resume and state.exists():
            raise UserError(f"{folder} holds a run already: go on with it by --resume, or name another --output.")
        # What is not given is as it was when the run began, wherever it is resumed.
        begun = read_steering(state).config.env if state.exists() else EnvConfig(available_cpus(), env_spec.horizon)
        config.env = dataclasses.replace(env, n_envs=env.n_envs or begun.n_envs, horizon=env.horizon or begun.horizon)
        env_spec = dataclasses.replace(env_spec, horizon=config.env.horizon or env_spec.horizon)
        with EnvPool(env_spec, config.env.n_envs) as pool:
            check_fits(policy.spec, pool)
            trainer = Trainer(policy, pool, config, folder, resume, device)
            # A --resume with other settings has been refused by now.
            write_config(config, bc_checkpoint, folder, network_module)
            trainer.run()
            if evaluation.report_episodes > 0:
                write_report(policy, pool, config, folder)
    print(f"wrote {folder}/sac_best.zip")
    say_next("judge it", "evaluate", "--checkpoint", bc_checkpoint, "--sac", folder / "sac_best.zip")


def write_config(config: DSRLConfig, bc_checkpoint: Path, folder: Path, network_module: str | None = None) -> None:
    """Write the resolved settings, as a file that ``--config`` takes."""
    import yaml

    network = {} if network_module is None else {"network_module": network_module}
    values = {"bc_checkpoint": str(bc_checkpoint), **network, **dataclasses.asdict(config), "output": str(folder)}
    with atomic_path(folder / "config.yaml") as partial:
        partial.write_text(yaml.safe_dump(values, sort_keys=False))
