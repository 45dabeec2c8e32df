"""run_episodes: exactly the asked episodes, the same at any number of environments."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from envs.episodes import episode_seed
from envs.messages import Capture
from envs.pool import EnvPool, EnvSpec, WorkerError
from envs.tasks import default_env_args
from rollouts.loop import Episode, EpisodeResult, run_episodes

SPEC = EnvSpec(default_env_args("lift"), pred_horizon=4, horizon=26)


class NoisyDescent:
    """Reaches for the cube with noise from the episodes' own generators; lifts it in some of them."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self._chunks: dict[int, int] = {}
        self._lifts: dict[int, bool] = {}

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        self.batches.append(len(episodes))
        actions = np.stack([0.1 * episode.rng.standard_normal((4, 7)) for episode in episodes])
        for row, (one, episode) in enumerate(zip(obs, episodes, strict=True)):
            n = self._chunks[episode.index] = self._chunks.get(episode.index, 0) + 1
            lifts = self._lifts.setdefault(episode.index, episode.rng.random() < 0.6)
            actions[row, :, :3] += np.clip((one[9:12] - one[:3]) / 0.05, -1, 1) if n < 5 else (0, 0, lifts)
            actions[row, :, 6] = 1 if n >= 4 else -1
        return actions.astype(np.float32)


@pytest.fixture(scope="module")
def pools() -> Iterator[list[EnvPool]]:
    with EnvPool(SPEC, 1) as one, EnvPool(SPEC, 3, n_workers=2) as three:
        yield [one, three]


def summary(results: list[EpisodeResult]) -> list[tuple[int, int, bool, int]]:
    return [(result.index, result.seed, result.success, result.length) for result in results]


def test_results_do_not_depend_on_the_number_of_environments(pools: list[EnvPool]) -> None:
    indices = [5, 0, 3, 9, 2, 7]
    one, three = (run_episodes(NoisyDescent(), pool, 1, indices, Capture(trajectory=True)) for pool in pools)
    assert summary(one) == summary(three)
    assert [result.index for result in one] == indices
    assert [result.seed for result in one] == [episode_seed(1, index) for index in indices]
    for a, b in zip(one, three, strict=True):
        assert a.trajectory is not None
        assert b.trajectory is not None
        assert np.array_equal(a.trajectory.states, b.trajectory.states)
        assert np.array_equal(a.trajectory.actions, b.trajectory.actions)
    assert {result.success for result in one} == {True, False}, "or this tests little"


def test_success_ends_an_episode_early_and_failure_at_the_horizon(pools: list[EnvPool]) -> None:
    results = run_episodes(NoisyDescent(), pools[1], 1, range(10))
    assert {result.length for result in results if not result.success} == {26}
    assert all(result.length < 26 and result.total_reward == 1 for result in results if result.success)


def test_every_episode_runs_once_and_is_told_once(pools: list[EnvPool]) -> None:
    told: list[int] = []
    agent = NoisyDescent()
    run_episodes(agent, pools[1], 0, range(7), on_result=lambda result: told.append(result.index))
    assert sorted(told) == list(range(7))
    assert max(agent.batches) <= 3
    assert run_episodes(agent, pools[1], 0, []) == []


def test_decisions_wait_for_a_batch_while_the_worker_has_work() -> None:
    agent = NoisyDescent()
    with EnvPool(SPEC, 6, n_workers=1) as pool:
        run_episodes(agent, pool, 0, range(18))
    # Of six running episodes at most two are under way when the agent decides; fewer run at the end.
    assert np.median(agent.batches) >= 4


def test_a_trajectory_is_every_env_step(pools: list[EnvPool]) -> None:
    (result,) = run_episodes(NoisyDescent(), pools[0], 0, [4], Capture(trajectory=True))
    trajectory = result.trajectory
    assert trajectory is not None
    assert trajectory.states.shape == (result.length, 32)
    assert trajectory.observations.shape == (result.length, 19)
    assert trajectory.actions.shape == (result.length, 7)
    assert trajectory.rewards.sum() == result.total_reward
    assert np.allclose(np.diff(trajectory.states[:, 0]), 0.05), "one control step of 20 Hz lies between two states"
    assert result.model_file is not None
    assert "cube_g0" in result.model_file
    assert result.frames is None


class FailingAgent:
    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        raise self._error


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_the_pool_is_usable_after_an_interrupted_run(pools: list[EnvPool], error: type[BaseException]) -> None:
    expected = summary(run_episodes(NoisyDescent(), pools[1], 0, range(3)))
    workers = [worker.process.pid for worker in pools[1]._workers]
    with pytest.raises(error):
        run_episodes(FailingAgent(error), pools[1], 0, range(9))
    assert summary(run_episodes(NoisyDescent(), pools[1], 0, range(3))) == expected
    assert [worker.process.pid for worker in pools[1]._workers] == workers, "the same warm workers"


def test_a_failing_worker_ends_the_run_with_its_traceback(pools: list[EnvPool]) -> None:
    class NanAgent:
        def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
            return np.full((len(obs), 4, 7), np.nan, np.float32)

    with pytest.raises(WorkerError, match="cannot execute the action"):
        run_episodes(NanAgent(), pools[1], 0, range(5))
