"""DSRL-NA: where the actor's gradient comes from, and what Q^W learns."""

from typing import Any, cast

import numpy as np
import pytest
import torch

from dsrl.build import build_learner
from dsrl.config import DSRLConfig, LearnerConfig
from dsrl.noise_aliasing import NoiseAliasingSAC
from envs.noise_space import ChunkVecEnv, NoiseSpaceVecEnv
from rollouts.decoder import FrozenDecoder
from tests.dsrl_toy import ToyPolicy, ToyPool

MAGNITUDE = 2.0


def make_learner(**settings: Any) -> NoiseAliasingSAC:
    policy = ToyPolicy()
    decoder = FrozenDecoder(policy)
    chunks = ChunkVecEnv(cast(Any, ToyPool()), 2, lambda k: k)
    venv = NoiseSpaceVecEnv(chunks, decoder.decode, decoder.normalize_obs, MAGNITUDE)
    learner_config = LearnerConfig(
        algorithm="na", hidden_sizes=[64, 64], learning_rate=1e-3, buffer_size=1000, **settings
    )
    learner = build_learner(DSRLConfig("toy", MAGNITUDE, 1, 0, 0, 1, learner=learner_config), venv)
    assert isinstance(learner, NoiseAliasingSAC)

    def decode(obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return policy.decode(obs, noise.view(-1, 2, 2)).flatten(1)

    learner.set_decoder(decode)
    return learner


def random_batch(n: int = 32) -> tuple[torch.Tensor, ...]:
    obs, next_obs = torch.randn(2, n, 3)
    return obs, torch.rand(n, 4), next_obs, torch.zeros(n, 1), -torch.ones(n, 1), torch.full((n, 1), 0.9)


def actor_moves(learner: NoiseAliasingSAC) -> bool:
    before = [parameter.detach().clone() for parameter in learner.policy.actor.parameters()]
    learner.update(random_batch(), torch.randn(32, 4), torch.randn(32, 4), True)
    return any(not torch.equal(b, p) for b, p in zip(before, learner.policy.actor.parameters(), strict=True))


def test_the_actors_gradient_comes_from_the_noise_critic_alone() -> None:
    learner = make_learner(ent_coef=0.0, distill_steps=0)
    assert actor_moves(learner)
    with torch.no_grad():
        for parameter in learner.policy.noise_critic.parameters():
            parameter.zero_()
    assert any(bool(parameter.any()) for parameter in learner.policy.critic.parameters())
    # Fresh optimiser: Adam's momentum would go on moving the actor.
    learner.policy.actor.optimizer = torch.optim.Adam(learner.policy.actor.parameters(), lr=1e-3)
    assert not actor_moves(learner)


def test_the_noise_critic_approaches_the_action_critic_through_the_decoder() -> None:
    torch.manual_seed(0)
    learner = make_learner()

    def error() -> float:
        obs = torch.randn(512, 3)
        noise = torch.randn(512, 4).clamp(-MAGNITUDE, MAGNITUDE)
        with torch.no_grad():
            wanted = learner.policy.critic.values(obs, learner.decode(obs, noise))
            return float((learner.policy.noise_critic.values(obs, noise / MAGNITUDE) - wanted).pow(2).mean())

    before = error()
    for _ in range(400):
        learner._distill(torch.randn(128, 3))
    assert error() < 0.05 * before


def test_the_buffer_keeps_the_executed_chunk_and_the_magnitude_bounds_the_noise() -> None:
    learner = make_learner()
    chunks = np.random.default_rng(0).uniform(-1, 1, (2, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(learner.stored_action(np.zeros((2, 4)), chunks), chunks.reshape(2, 4))
    seen: list[torch.Tensor] = []
    decode = learner.decode
    learner.decode = lambda obs, noise: seen.append(noise) or decode(obs, noise)  # type: ignore[func-returns-value]
    learner._distill(torch.randn(256, 3))
    learner.next_action(torch.randn(256, 3), 3 * torch.randn(256, 4))
    assert all(float(noise.detach().abs().max()) <= MAGNITUDE for noise in seen)
    assert float(seen[0].std()) == pytest.approx(0.96, abs=0.05)
