"""DSRL-NA: where the actor's gradient comes from, and what Q^W learns."""

from typing import Any, cast

import numpy as np
import pytest
import torch

from dsrl.learners.na import NAConfig, NoiseAliasingSAC
from dsrl.noise_space import ChunkVecEnv, NoiseSpaceVecEnv
from policies import DiffusionPolicy, PolicySpec
from policies.spec import NetworkConfig
from rollouts.decoder import FrozenDecoder
from tests.dsrl_toy import ToyPolicy, ToyPool

MAGNITUDE = 2.0


def make_learner(policy: Any = None, **settings: Any) -> NoiseAliasingSAC:
    decoder = FrozenDecoder(policy or ToyPolicy())
    chunks = ChunkVecEnv(cast(Any, ToyPool()), 2, lambda k: k)
    venv = NoiseSpaceVecEnv(chunks, decoder.decode, decoder.normalize_obs, MAGNITUDE)
    config = NAConfig(hidden_sizes=[64, 64], learning_rate=1e-3, buffer_size=1000, **settings)
    return NoiseAliasingSAC(config, venv, decoder)


def random_batch(n: int = 32) -> tuple[torch.Tensor, ...]:
    obs, next_obs = torch.randn(2, n, 3)
    return obs, torch.rand(n, 4), next_obs, torch.zeros(n, 1), -torch.ones(n, 1), torch.full((n, 1), 0.9)


def actor_moves(learner: NoiseAliasingSAC) -> bool:
    before = [parameter.detach().clone() for parameter in learner.policy.actor.parameters()]
    learner.update(random_batch(), torch.randn(32, 4), torch.randn(32, 4), True)
    return any(not torch.equal(b, p) for b, p in zip(before, learner.policy.actor.parameters(), strict=True))


def test_the_actors_gradient_comes_from_the_noise_critic_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(ent_coef=0.0)
    monkeypatch.setattr(learner, "distill", lambda obs: None)
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
        learner.distill(torch.randn(128, 3))
    assert error() < 0.05 * before


def test_the_buffer_keeps_the_executed_chunk_and_the_magnitude_bounds_the_noise() -> None:
    learner = make_learner()
    chunks = np.random.default_rng(0).uniform(-1, 1, (2, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(learner.stored_action(np.zeros((2, 4)), chunks), chunks.reshape(2, 4))
    seen: list[torch.Tensor] = []
    decode = learner.decode
    learner.decode = lambda obs, noise: seen.append(noise) or decode(obs, noise)  # type: ignore[func-returns-value, method-assign]
    learner.distill(torch.randn(256, 3))
    learner.next_action(torch.randn(256, 3), 3 * torch.randn(256, 4))
    assert all(float(noise.detach().abs().max()) <= MAGNITUDE for noise in seen)
    assert float(seen[0].std()) == pytest.approx(0.96, abs=0.05)


def test_the_critics_see_the_chunk_that_the_policy_decodes_from_the_raw_observation() -> None:
    torch.manual_seed(0)
    spec = PolicySpec({"offset": 2, "clock": 1}, 2, 2, NetworkConfig(init_args={"hidden_dims": [8], "time_dim": 4}))
    policy = DiffusionPolicy(spec).requires_grad_(False)
    policy.obs_normalizer.set_range(torch.tensor([-3.0, 0.0, 1.0]), torch.tensor([5.0, 0.5, 2.0]))
    learner = make_learner(policy)
    obs, noise = torch.randn(6, 3), torch.randn(6, 4)
    decoded = learner.decode(policy.normalize_obs(obs), noise)
    torch.testing.assert_close(decoded, policy.decode(obs, noise.view(6, 2, 2)).flatten(1))
