"""The scripted experts solve their tasks, briefly, in both styles."""

from collections.abc import Iterator

import numpy as np
import pytest

from envs.messages import EnvSpec
from envs.pool import EnvPool
from envs.tasks import TASKS, default_env_args
from experts.collection import RECORDED_KEYS, ExpertAgent, expert_class
from experts.manner import OPERATORS, Style, draw_manner
from rollouts.loop import EpisodeResult, run_episodes
from tests.worker_threads import worker_threads

N_EPISODES = 8
LONGEST = {"lift": 50, "can": 180, "square": 170}  # env steps: what a proficient human takes at most, or less


WITH_EXPERT = [name for name, task in TASKS.items() if task.expert is not None]


@pytest.fixture(scope="module", params=WITH_EXPERT)
def pool(request: pytest.FixtureRequest) -> Iterator[tuple[str, EnvPool]]:
    spec = EnvSpec(default_env_args(request.param), RECORDED_KEYS, pred_horizon=1)
    with worker_threads(), EnvPool(spec, n_envs=2) as pool:
        yield request.param, pool


def test_both_styles_succeed_and_the_proficient_one_is_quick(pool: tuple[str, EnvPool]) -> None:
    task, envs = pool

    def results_of(style: Style) -> list[EpisodeResult]:
        return run_episodes(ExpertAgent(expert_class(task), style, envs.obs_dims), envs, 7, range(N_EPISODES))

    proficient, mixed = results_of("proficient"), results_of("mixed")
    assert sum(result.success for result in proficient) >= N_EPISODES - 1
    assert sum(result.success for result in mixed) >= N_EPISODES - 2
    lengths = [result.length for result in proficient if result.success]
    assert max(lengths) <= LONGEST[task]
    assert len(set(lengths)) > N_EPISODES // 3  # varied, not one motion replayed
    assert np.mean([result.length for result in mixed]) > 1.15 * np.mean(lengths)


def test_mixed_style_draws_every_operator() -> None:
    rng = np.random.default_rng(0)
    speeds = [draw_manner("mixed", rng).speed for _ in range(200)]
    for skill in OPERATORS["mixed"]:
        assert any(skill.speed[0] <= speed <= skill.speed[1] for speed in speeds)
    assert min(speeds) < 0.4 < 0.8 < max(speeds)


def test_proficient_operator_neither_pauses_nor_strays() -> None:
    rng = np.random.default_rng(0)
    manners = [draw_manner("proficient", rng) for _ in range(100)]
    assert all(manner.detour is None for manner in manners)
    assert {int(rng.integers(*manner.pauses)) for manner in manners} == {0}
