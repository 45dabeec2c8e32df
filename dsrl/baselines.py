"""What RL has to beat: the frozen policy under fixed choices of noise."""

from collections.abc import Sequence

import numpy as np

from dsrl.config import DSRLConfig
from envs.pool import EnvPool
from rollouts.agents import DiffusionAgent
from rollouts.decoder import FrozenDecoder
from rollouts.evaluation import evaluate_agent
from rollouts.loop import Agent, Episode


class ConstantNoise:
    """The same w (H, A) at every chunk."""

    def __init__(self, decoder: FrozenDecoder, noise: np.ndarray) -> None:
        self.decoder, self.noise = decoder, noise

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """Chunks (B, H, A) for raw observations (B, D)."""
        return self.decoder.decode(obs, np.broadcast_to(self.noise, (len(obs), *self.noise.shape)).copy())


def baseline_agents(config: DSRLConfig, decoder: FrozenDecoder, pool: EnvPool, selection_seed: int) -> dict[str, Agent]:
    """The baselines by name; the best constant noise is chosen on episodes of ``selection_seed``."""
    policy, steps = decoder.policy, decoder.ddim_steps
    agents: dict[str, Agent] = {
        "base, w ~ N(0, I)": DiffusionAgent(policy, ddim_steps=steps),
        "base, N(0, I) cut at the magnitude": DiffusionAgent(
            policy, noise_clip=config.action_magnitude, ddim_steps=steps
        ),
        "base, w = 0": ConstantNoise(decoder, np.zeros(policy.chunk_shape, dtype=np.float32)),
    }
    for scale in {*config.warm_start.noise_scales, *config.learner.start_scales()} - {1.0}:
        agents[f"base, w ~ {scale:g} N(0, I)"] = DiffusionAgent(policy, scale, ddim_steps=steps)
    if config.evaluation.constant_candidates > 0:
        agents["base, best constant w"] = _best_constant(config, decoder, pool, selection_seed)
    return agents


def _best_constant(config: DSRLConfig, decoder: FrozenDecoder, pool: EnvPool, seed: int) -> ConstantNoise:
    rng = np.random.default_rng(seed)
    best, best_score = None, (-1.0, 0.0)
    for _ in range(config.evaluation.constant_candidates):
        agent = ConstantNoise(decoder, rng.standard_normal(decoder.policy.chunk_shape, dtype=np.float32))
        result = evaluate_agent(agent, pool, seed, config.evaluation.constant_episodes, "a constant noise")
        score = (result.success_rate, -result.mean_length)
        if score > best_score:
            best, best_score = agent, score
    assert best is not None
    return best
