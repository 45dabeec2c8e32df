"""NoiseSpaceVecEnv: what a stored action means, how often noise is decoded, how episodes end."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnv

from common.errors import UserError
from dsrl.noise_space import ChunkVecEnv, NoiseSpaceVecEnv, RewardKind, chunk_reward
from rollouts.decoder import FrozenDecoder
from tests.dsrl_toy import ToyPolicy, ToyPool


def make(pool: ToyPool, policy: ToyPolicy, magnitude: float = 1.5, **kwargs: Any) -> NoiseSpaceVecEnv:
    decoder = FrozenDecoder(policy)
    chunks = ChunkVecEnv(cast(Any, pool), 2, lambda k: 100 + k, **kwargs)
    return NoiseSpaceVecEnv(chunks, decoder.decode, decoder.normalize_obs, magnitude)


def still(venv: VecEnv) -> np.ndarray:
    """Noise that decodes to no motion."""
    return np.zeros((venv.num_envs, 4), dtype=np.float32)


def test_a_stored_action_decodes_to_the_executed_chunk() -> None:
    pool, policy = ToyPool(n_envs=3), ToyPolicy()
    venv = make(pool, policy, magnitude=1.5)
    venv.reset()
    raw_obs = venv.raw_obs.copy()
    stored = np.random.default_rng(0).uniform(-1, 1, (3, 4)).astype(np.float32)
    venv.step(1.5 * stored)
    expected = policy.decode(torch.as_tensor(raw_obs), torch.as_tensor(1.5 * stored).view(3, 2, 2)).numpy()
    for i, executed in pool.executed:
        np.testing.assert_allclose(executed, expected[i], rtol=1e-5)
    np.testing.assert_allclose(venv.chunks, expected, rtol=1e-5)


def test_all_environments_are_denoised_once_per_chunk_in_one_batch() -> None:
    pool, policy = ToyPool(n_envs=3), ToyPolicy()
    venv = make(pool, policy)
    venv.reset()
    for _ in range(10):
        venv.step(still(venv))
    assert policy.calls == [(3, 2, 2)] * 10


def test_time_limits_are_truncations_with_the_final_observation_and_fresh_seeds_follow() -> None:
    pool = ToyPool(n_envs=2, horizon=4)
    venv = make(pool, ToyPolicy())
    venv.reset()
    venv.step(still(venv))
    obs, rewards, dones, infos = venv.step(still(venv))
    assert dones.all()
    assert rewards.tolist() == [-1.0, -1.0]
    assert all(info["TimeLimit.truncated"] and not info["is_success"] for info in infos)
    assert all(info["terminal_observation"][2] == pytest.approx(1.0) for info in infos)
    assert all(info["episode"] == {"r": -2.0, "l": 4} for info in infos)
    assert np.asarray(obs)[:, 2].tolist() == [0.0, 0.0]
    assert pool.reset_seeds == [100, 101, 102, 103]


def test_time_limits_are_terminal_in_the_papers_convention() -> None:
    venv = make(ToyPool(n_envs=1, horizon=2), ToyPolicy(), time_limit_terminal=True)
    venv.reset()
    _, _, dones, infos = venv.step(still(venv))
    assert dones[0]
    assert not infos[0]["TimeLimit.truncated"]


def test_success_inside_a_chunk_ends_the_episode_and_is_no_truncation() -> None:
    pool = ToyPool(n_envs=1, horizon=2, radius=0.95)
    policy = ToyPolicy()
    venv = make(pool, policy, magnitude=10.0)
    venv.reset()
    towards_goal = np.tile(np.sign(venv.raw_obs[0, :2]), 2)
    noise = np.clip(5 * towards_goal @ policy.rotation.numpy(), -10, 10).astype(np.float32)
    _, rewards, dones, infos = venv.step(noise[None])
    assert dones[0]
    assert rewards[0] == 0.0
    assert infos[0]["is_success"]
    assert infos[0]["env_steps"] == 1
    assert not infos[0]["TimeLimit.truncated"]


@pytest.mark.parametrize(
    ("kind", "success", "steps", "expected"),
    [
        ("sparse", True, 3, 1.0),
        ("sparse", False, 4, 0.0),
        ("per_chunk", True, 3, 0.0),
        ("per_chunk", False, 4, -1.0),
        ("per_step", True, 3, -2.0),
        ("per_step", False, 4, -4.0),
    ],
)
def test_reward_conventions(kind: RewardKind, success: bool, steps: int, expected: float) -> None:
    assert chunk_reward(success, steps, kind) == expected


@pytest.mark.parametrize("magnitude", [0.0, -1.0, float("nan")])
def test_a_magnitude_that_is_not_positive_is_refused(magnitude: float) -> None:
    with pytest.raises(UserError, match="--action_magnitude"):
        make(ToyPool(), ToyPolicy(), magnitude=magnitude)
