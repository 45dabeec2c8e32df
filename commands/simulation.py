"""What `evaluate`, `record` and `dsrl` share: a checkpoint and its agents."""

from pathlib import Path

from common.errors import UserError
from policies import DiffusionPolicy, load_policy
from rollouts.agents import DiffusionAgent
from rollouts.loop import Agent


def load_checkpoint(checkpoint: Path, ddim_steps: int | None) -> DiffusionPolicy:
    """The policy, after checking that it can be denoised in ``ddim_steps``."""
    policy = load_policy(checkpoint)
    limit = policy.spec.diffusion.num_train_timesteps
    if ddim_steps is not None and not 1 <= ddim_steps <= limit:
        raise UserError(
            f"--ddim_steps is {ddim_steps}: {checkpoint} has {limit} diffusion steps, expected 1 to {limit}"
        )
    return policy


def agents_of(
    policy: DiffusionPolicy, sac: Path | None, ddim_steps: int | None, noise_scale: float
) -> dict[str, Agent]:
    """The agents to judge, by label: the base policy, and the steered one where a SAC archive is given."""
    agents: dict[str, Agent] = {"base": DiffusionAgent(policy, noise_scale=noise_scale, ddim_steps=ddim_steps)}
    if sac is not None:
        from dsrl.actor import load_steered_agent  # imports stable-baselines3: only where it is needed

        agents["steered"] = load_steered_agent(sac, policy, ddim_steps=ddim_steps)
    return agents
