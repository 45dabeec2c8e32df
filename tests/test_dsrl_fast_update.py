"""The fast update is stock SAC's: same losses and same weights after it, on the same batch and noise."""

import math
from typing import cast

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.dsrl_updates import SpacesOnly, copy_weights, fill, make_fast, make_stock
from dsrl.learners.base import SteeringSAC
from dsrl.learners.prior import PriorConfig, PriorSAC
from dsrl.learners.sac import NoiseSAC, SACConfig
from dsrl.networks import aggregate
from dsrl.replay import ChunkReplayBuffer

OBS, ACTIONS, HIDDEN = 5, 6, [32, 32]


def pair(ent_coef: str = "auto_0.2") -> tuple[SAC, SteeringSAC]:
    """A stock SAC and a SteeringSAC with the same weights and the same data."""
    stock, fast = make_stock(OBS, ACTIONS, HIDDEN, ent_coef), make_fast(OBS, ACTIONS, HIDDEN, ent_coef)
    copy_weights(stock, fast)
    fill(fast.replay_buffer, rows=64)
    return stock, fast


def minibatch(learner: SteeringSAC, n: int) -> tuple[torch.Tensor, ...]:
    """(obs, actions, next_obs, dones, rewards, discounts) of ``n`` drawn transitions."""
    data = learner.replay_buffer.gather(*learner.replay_buffer.draw(n))
    return tuple(part for part in data if part is not None)


def test_losses_and_weights_after_an_update_are_those_of_stock_sac(monkeypatch: pytest.MonkeyPatch) -> None:
    stock, fast = pair()
    stock.replay_buffer = fast.replay_buffer
    state = fast.replay_buffer.rng.bit_generator.state
    draws = torch.randn(3, 2, 16, ACTIONS, generator=torch.Generator().manual_seed(5))
    data = minibatch(fast, 3 * 16)
    for step in range(3):
        rows = slice(16 * step, 16 * (step + 1))
        fast.update(tuple(part[rows] for part in data), draws[step, 0], draws[step, 1], True)
    # Stock SAC draws its minibatches one after the other; the generator gives the same stream of indices either way.
    fast.replay_buffer.rng.bit_generator.state = state
    pending = [draw for step in draws for draw in step]
    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", lambda *args, **kw: pending.pop(0))
    stock.train(gradient_steps=3, batch_size=16)
    assert not pending
    assert fast.read_statistics()["critic_loss"] == pytest.approx(
        float(stock.logger.name_to_value["train/critic_loss"]), rel=1e-4
    )
    for ours, theirs in zip(fast.actor.parameters(), stock.actor.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    obs, noise = torch.randn(8, OBS), torch.rand(8, ACTIONS)
    torch.testing.assert_close(
        torch.stack(fast.policy.critic(obs, noise)), torch.stack(stock.critic(obs, noise)), rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(
        torch.stack(fast.policy.critic_target(obs, noise)), torch.stack(stock.critic_target(obs, noise))
    )
    torch.testing.assert_close(fast.log_ent_coef, stock.log_ent_coef)


def test_compiled_losses_end_where_the_plain_ones_end() -> None:
    hidden = [32]  # every further layer costs the compiler as much again
    plain = make_fast(OBS, ACTIONS, hidden, "auto_0.2")
    compiled = make_fast(OBS, ACTIONS, hidden, "auto_0.2", compile_losses="kernels")
    compiled.policy.load_state_dict(plain.policy.state_dict())
    with torch.no_grad():
        cast(torch.Tensor, compiled.log_ent_coef).copy_(cast(torch.Tensor, plain.log_ent_coef))
    for learner in (plain, compiled):
        fill(learner.replay_buffer, rows=64)
        learner.generator.manual_seed(3)
        learner.train(5, 16)
    assert compiled.read_statistics() == pytest.approx(plain.read_statistics(), rel=1e-4)
    for ours, theirs in zip(compiled.policy.parameters(), plain.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_actor_loss_leaves_no_gradient_in_the_critics() -> None:
    _, fast = pair()
    data = minibatch(fast, 16)
    obs = data[0]
    fast.update(data, torch.randn(16, ACTIONS), torch.randn(16, ACTIONS), False)
    before = [cast(torch.Tensor, parameter.grad).clone() for parameter in fast.policy.critic.parameters()]
    fast.actor_loss(obs, torch.zeros(16, ACTIONS), torch.tensor(0.1))[0].backward(
        inputs=list(fast.policy.actor.parameters())
    )
    after = [cast(torch.Tensor, parameter.grad) for parameter in fast.policy.critic.parameters()]
    assert all(torch.equal(b, a) for b, a in zip(before, after, strict=True))


def test_train_draws_all_minibatches_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fast = pair()
    calls: list[int] = []
    draw = fast.replay_buffer.draw

    def counted(n: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, np.ndarray]:
        calls.append(n)
        return draw(n, rng)

    monkeypatch.setattr(fast.replay_buffer, "draw", counted)
    fast.train(7, 16)
    assert calls == [7 * 16]
    assert fast._n_updates == 7


@pytest.mark.parametrize(("bias", "worth"), [(5.0, 0.0), (-100.0, -3.0)])
def test_what_follows_is_clamped_to_what_rewards_can_give(bias: float, worth: float) -> None:
    venv = DummyVecEnv([lambda: SpacesOnly(OBS, ACTIONS)])
    learner = NoiseSAC(SACConfig(buffer_size=10), venv, value_range=(-3.0, 0.0))
    n = 8
    zeros, ones = torch.zeros(n, 1), torch.ones(n, 1)
    with torch.no_grad():
        learner.policy.critic_target.biases[-1].fill_(bias)
    target = learner.td_target(
        torch.randn(n, OBS), torch.zeros(n, ACTIONS), -2 * ones, zeros, 0.5 * ones, torch.tensor(0.0)
    )
    assert torch.equal(target, torch.full((n, 1), -2 + 0.5 * worth)), "rewards of several steps come on top"


def buffer_with_stream(n_steps: int, dones: list[int], timeouts: list[int]) -> ChunkReplayBuffer:
    """One environment's stream: reward t at row t, observation t, next observation t + 1."""
    box = spaces.Box(-1, 1, (1,), np.float32)
    buffer = ChunkReplayBuffer(100, spaces.Box(-np.inf, np.inf, (1,), np.float32), box, n_steps=n_steps, gamma=0.5)
    for t, (done, timeout) in enumerate(zip(dones, timeouts, strict=True)):
        obs, next_obs = np.full((1, 1), t, np.float32), np.full((1, 1), t + 1, np.float32)
        infos = [{"TimeLimit.truncated": bool(timeout)}]
        buffer.add(obs, next_obs, np.zeros((1, 1)), np.array([float(t)]), np.array([bool(done)]), infos)
    return buffer


def test_n_step_returns_stop_at_an_episodes_end_and_at_the_newest_row() -> None:
    buffer = buffer_with_stream(3, dones=[0, 0, 1, 0, 0, 1, 0], timeouts=[0, 0, 0, 0, 0, 1, 0])
    batch = buffer.gather(np.arange(7), np.zeros(7, dtype=int))
    returns = [0 + 0.5 * 1 + 0.25 * 2, 1 + 0.5 * 2, 2, 3 + 0.5 * 4 + 0.25 * 5, 4 + 0.5 * 5, 5, 6]
    assert batch.rewards[:, 0].tolist() == pytest.approx(returns)
    assert batch.next_observations[:, 0].tolist() == [3, 3, 3, 6, 6, 6, 7]
    assert batch.discounts is not None
    assert batch.discounts[:, 0].tolist() == pytest.approx([0.125, 0.25, 0.5, 0.125, 0.25, 0.5, 0.5])
    # Row 2 ends in success: no bootstrap. Row 5 is a time limit: bootstrap.
    assert batch.dones[:, 0].tolist() == [1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("n_steps", [1, 3, 5])
def test_returns_are_those_of_stable_baselines3(n_steps: int) -> None:
    # With more rows written than there is room for: the newest lies in the middle.
    boxes = spaces.Box(-np.inf, np.inf, (1,), np.float32), spaces.Box(-1, 1, (1,), np.float32)
    ours = ChunkReplayBuffer(50, *boxes, n_steps=n_steps, gamma=0.9)
    theirs = NStepReplayBuffer(50, *boxes, n_steps=n_steps, gamma=0.9)
    rng = np.random.default_rng(n_steps)
    for t in range(70):
        done = rng.random(1) < 0.15
        infos = [{"TimeLimit.truncated": bool(done and rng.random() < 0.5)}]
        step = (np.full((1, 1), t), np.full((1, 1), t + 1), np.zeros((1, 1)), rng.random(1), done, infos)
        ours.add(*step)
        theirs.add(*step)
    rows = np.arange(50)
    for found, expected in zip(ours.gather(rows, np.zeros(50, dtype=int)), theirs._get_samples(rows), strict=True):
        torch.testing.assert_close(found, expected)


def test_interrupted_episodes_bootstrap_and_are_not_run_into() -> None:
    buffer = buffer_with_stream(3, dones=[0, 0], timeouts=[0, 0])
    buffer.interrupt()
    box = np.zeros((1, 1), np.float32)
    buffer.add(box, box, box, np.array([50.0]), np.array([False]), [{}])
    batch = buffer.gather(np.array([0, 1]), np.zeros(2, dtype=int))
    assert batch.rewards[:, 0].tolist() == pytest.approx([0.5, 1.0])
    assert batch.dones[:, 0].tolist() == [0, 0]


def test_an_ensemble_is_valued_by_its_minimum_or_by_mean_minus_deviations() -> None:
    values = torch.tensor([[[1.0]], [[3.0]], [[5.0]]])
    assert aggregate(values, None).item() == 1.0
    assert aggregate(values, 0.0).item() == 3.0
    assert aggregate(values, 0.5).item() == pytest.approx(3 - 0.5 * (8 / 3) ** 0.5)


def test_prior_actor_starts_as_scaled_noise_and_its_penalty_is_the_kl() -> None:
    venv = DummyVecEnv([lambda: SpacesOnly(OBS, ACTIONS)])
    learner = PriorSAC(PriorConfig(prior_scale=0.25, layer_norm=False, buffer_size=10), venv)
    actor = learner.policy.actor
    obs, eps = torch.randn(64, OBS), torch.randn(64, ACTIONS)
    action, kl = actor.sample(obs, eps)
    torch.testing.assert_close(action, (0.25 * eps).clamp(-1, 1), atol=5e-3, rtol=0)
    assert float(kl.detach().abs().max()) < 1e-3
    with torch.no_grad():
        cast(torch.Tensor, actor.mu.bias).add_(0.3)
        cast(torch.nn.Linear, actor.log_std).bias.sub_(0.5)
    mean, log_std, _ = actor.get_action_dist_params(obs)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(1, keepdim=True)
    torch.testing.assert_close(actor.sample(obs, eps)[1], expected)
    assert F.relu(expected).min() > 0.1


@pytest.mark.parametrize("penalty", [-100.0, 100.0])
def test_an_automatic_coefficient_has_a_rate_of_its_own_and_stays_between_its_bounds(penalty: float) -> None:
    learner = make_fast(OBS, ACTIONS, HIDDEN, "auto_0.2", ent_coef_lr=0.5, min_ent_coef=0.01, max_ent_coef=5.0)
    learner.update_coefficient(torch.full((16, 1), penalty))
    # Adam's first step is the rate: half a unit of the logarithm.
    assert float(learner.coefficient()) == pytest.approx(0.2 * math.exp(math.copysign(0.5, penalty)), rel=1e-3)
    for _ in range(20):
        learner.update_coefficient(torch.full((16, 1), penalty))
    assert float(learner.coefficient()) == pytest.approx(0.01 if penalty < 0 else 5.0)


def test_the_average_of_the_actor_is_torchs_and_moves_with_the_actor_alone() -> None:
    learner = make_fast(OBS, ACTIONS, HIDDEN, "auto", actor_tau=0.1, learning_rate=0.01)
    fill(learner.replay_buffer, rows=64)
    expected = AveragedModel(learner.policy.actor, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    expected.update_parameters(learner.policy.actor)  # its first step copies
    learner.train(3, 16, train_actor=False)
    for _ in range(4):
        learner.train(1, 16)
        expected.update_parameters(learner.policy.actor)
    for ours, theirs, own in zip(
        learner.policy.played_actor.parameters(),
        expected.module.parameters(),
        learner.policy.actor.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
        assert not torch.equal(ours, own)
