"""Baselines: the search for a constant noise, and what was played before is not played again."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dsrl.baselines import fixed_baselines
from dsrl.golden_ticket import ConstantNoise, search
from dsrl.report import write_report
from envs.messages import Capture
from policies.schedule import DiffusionConfig
from rollouts.decoder import FrozenDecoder
from rollouts.evaluation import evaluate_agent
from tests.dsrl_toy import ToyPolicy, ToyPool
from tests.test_dsrl_training import settings, trainer

STEERED = 2 * 20  # episodes of its mean and its draws


class OneGoal(ToyPool):
    """The goal always lies in the same direction, so that a constant noise can lead there, or nowhere near."""

    def reset(self, i: int, seed: int, capture: Capture | None = None) -> None:
        super().reset(i, 0, capture)


def test_the_search_finds_one_of_the_best_constant_noises_within_its_budget() -> None:
    decoder = FrozenDecoder(ToyPolicy())

    def length(noise: np.ndarray) -> float:
        agent = ConstantNoise(decoder, noise)
        return evaluate_agent(agent, cast(Any, OneGoal(1)), 0, 1, show=False).mean_length

    found = search(decoder, cast(Any, OneGoal(8)), seed=0, env_steps=4_000, candidates=1024)
    assert found.env_steps == pytest.approx(4_000, rel=0.2)
    assert 60 < found.candidates < 1024, "as many as can have an episode each in the first round"
    others = [length(w) for w in np.random.default_rng(1).standard_normal((60, 2, 2), dtype=np.float32)]
    assert length(found.noise) <= np.quantile(others, 0.02) < np.mean(others)


def test_a_small_budget_and_few_candidates_are_met_and_the_pool_does_not_matter() -> None:
    decoder = FrozenDecoder(ToyPolicy())
    one, many = (search(decoder, cast(Any, ToyPool(n)), 3, env_steps=1_500, candidates=20) for n in (1, 7))
    assert (one.candidates, one.env_steps) == (many.candidates, many.env_steps)
    np.testing.assert_array_equal(one.noise, many.noise)
    assert one.candidates == 20
    assert one.env_steps == pytest.approx(1_500, rel=0.2)
    tiny = search(decoder, cast(Any, ToyPool()), 3, env_steps=1, candidates=1024)
    assert tiny.candidates == 1


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    trainer(settings("prior", train_steps=0), tmp_path / "run").run()
    return tmp_path / "run"


def test_baselines_are_played_once_and_a_damaged_result_again(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, kept = settings("prior"), tmp_path / "baselines"
    config.evaluation.constant_candidates = 16

    def report() -> tuple[dict[str, Any], int]:
        pool = ToyPool()
        return write_report(ToyPolicy(), cast(Any, pool), config, run_folder, kept), len(pool.reset_seeds)

    first, n_first = report()
    assert n_first > STEERED + 4 * 20, "four fixed baselines, the search, its outcome"
    again, n_again = report()
    assert again == first
    assert n_again == STEERED
    assert capsys.readouterr().out.count("as played before") == 5
    searched = json.loads((run_folder / "report.json").read_text())["constant_search"]
    assert searched["candidates"] == 16
    assert searched["env_steps"] == pytest.approx(200, rel=0.5), "as many as the run"

    files = sorted(kept.iterdir())
    assert len(files) == 6
    entry = json.loads(files[1].read_text())
    entry["result"] = {**entry["result"], "success_rate": 0.123}
    files[0].write_text(files[0].read_text()[:-40])
    files[1].write_text(json.dumps(entry))
    mended, n_mended = report()
    assert mended == first
    assert n_mended > n_again
    out = capsys.readouterr().out
    for path in files[:2]:
        assert f"{path} is damaged: a baseline's result is computed again" in out
    assert report()[1] == STEERED

    config.evaluation.report_episodes = 10
    assert report()[1] == 2 * 10 + 5 * 10, "other episodes; the search was the same"


def test_results_that_cannot_be_kept_cost_no_report(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "baselines"
    kept.touch()  # where the folder would be
    report = write_report(ToyPolicy(), cast(Any, ToyPool()), settings("prior"), run_folder, kept)
    assert report
    said = capsys.readouterr().out
    assert "cannot be read, so a baseline's result is computed again: Not a directory" in said
    assert "a baseline's result is not kept for later runs: cannot write" in said


def test_the_policy_is_judged_with_the_noise_that_is_its_own() -> None:
    policy = ToyPolicy()
    policy.spec.diffusion = DiffusionConfig(noise_scale=0.25)
    assert "base, w ~ 0.25 N(0, I)" in fixed_baselines(settings("prior"), FrozenDecoder(policy))


def test_a_folder_that_cannot_be_written_costs_no_report(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "baselines").write_text("")
    report = write_report(ToyPolicy(), cast(Any, ToyPool()), settings("prior"), run_folder, tmp_path / "baselines")
    assert len(report) == 6
    assert "a baseline's result is not kept for later runs: cannot write" in capsys.readouterr().out
