"""What RL has to beat: the frozen policy under fixed choices of noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsrl.config import DSRLConfig
from dsrl.golden_ticket import ConstantNoise, search
from dsrl.played import PlayedResults
from envs.pool import EnvPool
from rollouts.agents import DiffusionAgent
from rollouts.decoder import FrozenDecoder
from rollouts.evaluation import evaluate_agent
from rollouts.loop import Agent
from rollouts.placement import Locate

TICKET = "base, best constant w"


@dataclass(frozen=True)
class Baseline:
    """An agent, and in JSON values the noise that makes it one."""

    agent: Agent
    noise: dict[str, Any]


def fixed_baselines(config: DSRLConfig, decoder: FrozenDecoder) -> dict[str, Baseline]:
    """Those that need no search, by name; the policy as it plays by itself among them.

    N(0, I) cut at the magnitude is among them where the cut is felt: at 3 it moves one component in 370.
    """
    cut = config.action_magnitude
    clipped = {"base, N(0, I) cut at the magnitude": _gaussian(decoder, 1.0, cut)} if cut < 3 else {}
    own = decoder.policy.spec.diffusion.noise_scale
    scales = {*config.warm_start.noise_scales, *config.learner.start_scales(), own} - {0.0, 1.0}
    zero = ConstantNoise(decoder, np.zeros(decoder.policy.chunk_shape, dtype=np.float32))
    return {
        "base, w ~ N(0, I)": _gaussian(decoder, 1.0),
        **clipped,
        "base, w = 0": Baseline(zero, {"constant": 0}),
        **{f"base, w ~ {scale:g} N(0, I)": _gaussian(decoder, scale) for scale in sorted(scales, reverse=True)},
    }


def _gaussian(decoder: FrozenDecoder, scale: float, cut: float | None = None) -> Baseline:
    agent = DiffusionAgent(decoder.policy, scale, cut, decoder.ddim_steps)
    return Baseline(agent, {"gaussian": scale, "cut": cut})


def golden_ticket(
    config: DSRLConfig, decoder: FrozenDecoder, pool: EnvPool, seed: int, env_steps: int, played: PlayedResults
) -> dict[str, Any]:
    """The constant noise that a search on episodes of ``seed`` finds in ``env_steps``, or found before.

    Returns:
        A ``Ticket`` as JSON values.
    """
    candidates = config.evaluation.constant_candidates

    def find() -> dict[str, Any]:
        found = search(decoder, pool, seed, env_steps, candidates)
        return {"candidates": found.candidates, "env_steps": found.env_steps, "noise": found.noise.tolist()}

    what = {"search": "successive halving", "candidates": candidates, "env_steps": env_steps, "seed": seed}
    return played.get(what, find)[0]


def judge(
    baseline: Baseline,
    name: str,
    pool: EnvPool,
    seed: int,
    n_episodes: int,
    played: PlayedResults,
    locate: Locate | None = None,
) -> tuple[dict[str, Any], bool]:
    """``Evaluation.outcome`` of a baseline on episodes of ``seed``, and whether it had been played before."""
    return played.get(
        {"noise": baseline.noise, "seed": seed, "episodes": n_episodes},
        lambda: evaluate_agent(baseline.agent, pool, seed, n_episodes, name).outcome(locate),
    )
