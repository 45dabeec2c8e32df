"""What `evaluate`, `record` and `dsrl` share: a checkpoint and its agents."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.errors import UserError
from common.user_modules import import_named
from envs.messages import EnvSpec
from policies import DiffusionPolicy, load_policy
from rollouts.agents import DiffusionAgent, NoiseAgent
from rollouts.simulation import simulation_of

if TYPE_CHECKING:
    from dsrl.config import DSRLConfig


def load_checkpoint(
    checkpoint: Path, ddim_steps: int | None = None, network_module: str | None = None
) -> DiffusionPolicy:
    """The policy, its network perhaps of ``network_module``, after checking that ``ddim_steps`` are possible."""
    if network_module is not None:
        import_named(network_module, "--network_module")
    policy = load_policy(checkpoint)
    limit = policy.spec.diffusion.num_train_timesteps
    if ddim_steps is not None and not 1 <= ddim_steps <= limit:
        raise UserError(
            f"--ddim_steps is {ddim_steps}: {checkpoint} has {limit} diffusion steps, expected 1 to {limit}"
        )
    return policy


def steps_of(policy: DiffusionPolicy, sac: Path | None, ddim_steps: int | None) -> int:
    """The denoising steps to judge with: as given, else those the actor was trained with, else the policy's own."""
    if ddim_steps is None and sac is not None:
        ddim_steps = _trained_with(sac).ddim_steps
        limit = policy.spec.diffusion.num_train_timesteps
        if ddim_steps is not None and not 1 <= ddim_steps <= limit:
            raise UserError(f"{sac} says it was trained with {ddim_steps} denoising steps, the checkpoint has {limit}")
    return ddim_steps or policy.spec.diffusion.ddim_steps


def _trained_with(sac: Path) -> "DSRLConfig":
    from dsrl.archive import read_steering  # imports stable-baselines3: only where it is needed

    return read_steering(sac).config


class Players(NamedTuple):
    """A policy, and all that playing it takes.

    Args:
        policy: as loaded.
        agents: by label: the base policy, and the steered one where there is an archive of it.
        ddim_steps: denoising steps of both.
        task: its short name, else the environment's.
        env_spec: where they play.
    """

    policy: DiffusionPolicy
    agents: dict[str, NoiseAgent]
    ddim_steps: int
    task: str
    env_spec: EnvSpec


def players(
    checkpoint: Path,
    sac: Path | None = None,
    ddim_steps: int | None = None,
    noise_scale: float | None = None,
    horizon: int | None = None,
    task: str | None = None,
    network_module: str | None = None,
    render_size: tuple[int, int] | None = None,
) -> Players:
    """The base policy, and the steered one, with the flags of `evaluate` and `record`.

    What is not given is the actor's, as it was trained, else the policy's and the task's own. The steered policy plays
    its actor's mean or draws, whichever evaluated better in training.
    """
    policy = load_checkpoint(checkpoint, ddim_steps, network_module)
    ddim_steps = steps_of(policy, sac, ddim_steps)
    agents: dict[str, NoiseAgent] = {"base": DiffusionAgent(policy, noise_scale=noise_scale, ddim_steps=ddim_steps)}
    if sac is not None:
        from dsrl.agent import load_steered_agent

        agents["steered"] = load_steered_agent(sac, policy, ddim_steps=ddim_steps, deterministic=None)
        horizon = _trained_with(sac).env.horizon if horizon is None else horizon
    name, env_spec = simulation_of(policy.spec, task, horizon, render_size)
    return Players(policy, agents, ddim_steps, name or env_spec.env_args["env_name"], env_spec)


def check_seed(seed: int) -> None:
    """Raises UserError for a seed outside 0 to 2^32 - 1; those above belong to collections."""
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed is {seed}: expected 0 to {2**32 - 1}")
