"""Whole runs on a toy: learning, resuming, archives, and what must not change."""

import csv
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC

from common.errors import UserError
from dsrl.agent import SteeredAgent, load_steered_agent
from dsrl.archive import RUN_STATE, STEERING, read_steering, write_archive
from dsrl.config import DSRLConfig, EvalConfig, WarmStartConfig, config_from_dict
from dsrl.learners import LEARNERS
from dsrl.learners.prior import PriorConfig, PriorSAC
from dsrl.report import write_report
from dsrl.trainer import Trainer
from rollouts.evaluation import evaluate_agent
from rollouts.loop import Episode
from tests.dsrl_toy import ToyPolicy, ToyPool


def settings(algorithm: str = "sac", train_steps: int = 200, **learner: Any) -> DSRLConfig:
    """A run of half a second."""
    return DSRLConfig(
        task="toy",
        action_magnitude=2.5,
        ddim_steps=1,
        initial_steps=200,
        train_steps=train_steps,
        utd=2,
        learner=LEARNERS[algorithm].config_type(
            hidden_sizes=[32, 32],
            batch_size=64,
            learning_rate=1e-3,
            gamma=0.9,
            buffer_size=10_000,
            **{**({"prior_scale": 0.8} if algorithm == "prior" else {}), **learner},
        ),
        warm_start=WarmStartConfig(noise_scales=[1.0], critic_updates=50),
        evaluation=EvalConfig(every=100, episodes=20, report_episodes=20),
    )


def trainer(config: DSRLConfig, folder: Path, policy: ToyPolicy | None = None, resume: bool = False) -> Trainer:
    return Trainer(policy or ToyPolicy(), cast(Any, ToyPool()), config, folder, resume)


def metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv`` without what the clock says."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trainer(settings("prior"), folder).run()
    return folder


@pytest.mark.parametrize(("algorithm", "train_steps"), [("sac", 1_000), ("na", 1_200), ("prior", 2_000)])
def test_every_learner_solves_a_task_whose_best_noise_is_known(
    algorithm: str, train_steps: int, tmp_path: Path
) -> None:
    config = settings(algorithm, train_steps=train_steps)
    config.evaluation.every = 200
    trainer(config, tmp_path).run()
    rows = metrics(tmp_path)
    before, after = rows[0], [row for row in rows if row["eval/deterministic_success"]][-1]
    assert float(before["rollout/success"]) < 0.5
    assert float(after["eval/deterministic_success"]) >= 0.95
    # The goal at distance 1, within .5, in steps of .2: four control steps at the least.
    assert float(after["eval/deterministic_length"]) < 8


def test_the_base_policy_does_not_change(tmp_path: Path) -> None:
    policy = ToyPolicy()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    trainer(settings("na", train_steps=100), tmp_path, policy).run()
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("prior", {}), ("prior", {"actor_tau": 0.05, "candidates": 3}), ("na", {"actor_tau": 0.05, "candidates": 3})],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    algorithm: str, options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(algorithm, **options)
    whole = trainer(config, tmp_path / "whole")
    whole.run()
    broken = trainer(config, tmp_path / "broken")
    step, calls = broken._step, []

    def fail_later(scaled_noise: np.ndarray, train: bool) -> Any:
        calls.append(train)
        if sum(calls) > 35:
            raise KeyboardInterrupt
        return step(scaled_noise, train)

    broken._step = fail_later  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = trainer(config, tmp_path / "broken", resume=True)
    assert f"saved at {resumed.env_steps:,} env steps: --resume goes on there" in capsys.readouterr().out
    assert 0 < resumed.env_steps < whole.env_steps
    resumed.run()
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    for ours, wanted in zip(resumed.learner.policy.parameters(), whole.learner.policy.parameters(), strict=True):
        assert torch.equal(ours, wanted)
    theirs = whole.learner.replay_buffer.state()
    for name, value in resumed.learner.replay_buffer.state().items():
        same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
        assert same, name


def test_a_run_that_is_stopped_while_it_evaluates_leaves_nothing_it_would_stumble_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []

    def stop_amid_draws(*args: Any, **kwargs: Any) -> Any:
        judged.append(args)
        if len(judged) in (2, 6):
            raise KeyboardInterrupt
        return evaluate_agent(*args, **kwargs)

    config = settings("prior")
    whole = trainer(config, tmp_path / "whole")
    whole.run()
    monkeypatch.setattr("dsrl.trainer.evaluate_agent", stop_amid_draws)
    with pytest.raises(KeyboardInterrupt):
        trainer(config, tmp_path / "run").run()
    assert not list((tmp_path / "run").glob("*.zip"))
    with pytest.raises(KeyboardInterrupt):
        trainer(config, tmp_path / "run").run()
    best, last = (read_steering(tmp_path / "run" / f"sac_{name}.zip").env_steps for name in ("best", "last"))
    assert best <= last
    trainer(config, tmp_path / "run", resume=True).run()
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    for name in ("best", "last"):
        steering = [read_steering(tmp_path / folder / f"sac_{name}.zip") for folder in ("run", "whole")]
        assert steering[0] == steering[1]


@pytest.mark.parametrize("kept", [0, 1])
def test_a_run_that_ends_between_its_two_archives_writes_the_second_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    written: list[Path] = []

    def end_between(path: Path, *args: Any) -> None:
        if path.name == "sac_best.zip" and [each.name for each in written].count(path.name) == kept:
            raise SystemExit(143)
        written.append(path)
        write_archive(path, *args)

    config = settings("na", train_steps=400)
    with monkeypatch.context() as patch:
        patch.setattr("dsrl.trainer.write_archive", end_between)
        with pytest.raises(SystemExit):
            trainer(config, tmp_path / "run").run()
    resumed = trainer(config, tmp_path / "run", resume=True)
    best, last = (read_steering(tmp_path / "run" / f"sac_{name}.zip") for name in ("best", "last"))
    assert best == last, "as the state says"
    resumed.run()
    trainer(config, tmp_path / "whole").run()
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_run_does_not_go_on_without_its_best_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([1.0, *[0.0] * 99])
    monkeypatch.setattr(
        "dsrl.trainer.evaluate_agent", lambda *_, **__: SimpleNamespace(success_rate=next(rates), mean_length=1.0)
    )
    config = settings("prior", train_steps=400)
    trainer(config, tmp_path).run()
    shutil.copy(tmp_path / "sac_last.zip", tmp_path / "sac_best.zip")
    with pytest.raises(UserError, match=r"is an actor after \d+ env steps, and the best so far was that after 200 "):
        trainer(config, tmp_path, resume=True)
    (tmp_path / "sac_best.zip").unlink()
    with pytest.raises(UserError, match=r"sac_best\.zip is gone, the best actor so far after 200 env steps"):
        trainer(config, tmp_path, resume=True)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(short_run: Path, tmp_path: Path) -> None:
    trainer(settings("prior"), tmp_path / "same").run()
    assert metrics(tmp_path / "same") == metrics(short_run)
    config = settings("prior")
    config.seed = 1
    trainer(config, tmp_path / "other").run()
    assert metrics(tmp_path / "other") != metrics(short_run)


def test_the_warm_start_counts_env_steps_and_stores_scaled_cut_noise(tmp_path: Path) -> None:
    config = settings(train_steps=0)
    config.action_magnitude = 0.5
    run = trainer(config, tmp_path)
    run.run()
    # Two environments of two steps per chunk: the count may run over by at most one vector step.
    assert 200 <= run.env_steps < 204
    stored = run.learner.replay_buffer.state()["actions"].numpy()
    assert np.abs(stored).max() == 1.0
    share = run.clipped[0] / run.clipped[1]
    assert share == pytest.approx(0.617, abs=0.05)  # P(|w| > .5)
    assert np.mean(np.abs(stored) == 1.0) == pytest.approx(share)


def test_without_a_given_scale_the_actor_starts_as_the_noise_that_served_best(tmp_path: Path) -> None:
    config = settings("prior", train_steps=0, prior_scale=None, actor_tau=0.05)
    # The toy's optimum lies far out: small noise cannot reach the goal, large noise sometimes does.
    config.warm_start.noise_scales = [0.1, 2.0]
    config.initial_steps = 600
    run = trainer(config, tmp_path)
    run.run()
    assert np.mean(run.warm["0.1"]) < np.mean(run.warm["2"])
    agent = load_steered_agent(tmp_path / "sac_last.zip", ToyPolicy(), deterministic=False)
    rng = np.random.default_rng(0)
    noise = agent.noise(np.zeros((500, 3), np.float32), [Episode(0, 0, rng)] * 500)
    # N(0, 2^2), cut at 2.5: standard deviation 1.66.
    assert np.std(noise) == pytest.approx(1.66, abs=0.05)


def test_noise_scales_are_dealt_evenly_and_a_scale_is_not_flattered_by_its_quick_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("prior", train_steps=0, prior_scale=None)
    config.warm_start.noise_scales = [0.5, 1.0, 2.0]
    seen: list[Mapping[str, Sequence[int]]] = []
    monkeypatch.setattr(PriorSAC, "begin_acting", lambda learner, successes: seen.append(successes))
    run = trainer(config, tmp_path)
    run.run()
    begun = {name: len(successes) for name, successes in seen[0].items()}
    assert sum(begun.values()) == run.episodes + 2, "with the two under way"
    assert max(begun.values()) - min(begun.values()) <= 1
    assert {name: sum(successes) for name, successes in seen[0].items()} == {k: sum(v) for k, v in run.warm.items()}


def test_without_an_episode_to_judge_scales_by_the_actor_starts_as_the_widest(tmp_path: Path) -> None:
    config = settings("prior", train_steps=0, prior_scale=None)
    config.warm_start = WarmStartConfig(noise_scales=[0.3, 0.5])
    config.initial_steps = 4  # of an episode's twelve
    run = trainer(config, tmp_path)
    run.run()
    assert float(run.learner.policy.actor.prior_scale) * config.action_magnitude == pytest.approx(0.5)


def test_a_pool_of_its_own_for_judging_changes_no_result(short_run: Path, tmp_path: Path) -> None:
    training, judges = ToyPool(), ToyPool(n_envs=8)
    run = Trainer(ToyPolicy(), cast(Any, training), settings("prior"), tmp_path, judges=cast(Any, judges))
    run.run()
    assert metrics(tmp_path) == metrics(short_run), "training, and both actors in every evaluation"
    played = Counter(judges.reset_seeds)
    assert len(played) == 20, "an evaluation's episodes"
    assert set(played.values()) == {2 * 3}, "two actors, three evaluations"
    assert not played.keys() & set(training.reset_seeds)


@pytest.mark.parametrize("algorithm", ["sac", "na", "prior"])
def test_an_untrained_actor_plays_the_frozen_policy(algorithm: str, tmp_path: Path) -> None:
    run = trainer(settings(algorithm, actor_tau=0.05), tmp_path)
    agent = SteeredAgent(run.learner.policy, run.decoder, run.config.learner, deterministic=True)
    obs = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    noise = agent.noise(obs, [])
    assert np.sqrt(np.mean(noise**2)) < 0.02, "its mean is w = 0"


def test_an_actor_decides_on_one_thread_so_that_a_row_does_not_depend_on_the_others(tmp_path: Path) -> None:
    run = trainer(settings("prior"), tmp_path)
    agent = SteeredAgent(run.learner.policy, run.decoder, run.config.learner, deterministic=True)
    seen: list[int] = []
    agent.networks.played_actor.mu.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        agent.noise(np.zeros((3, 3), np.float32), [])
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_with_a_rate_of_its_own_the_coefficient_holds_the_kl_at_its_opening_target(tmp_path: Path) -> None:
    config = settings(
        "prior", train_steps=450, ent_coef="auto_0.01", ent_coef_lr=1e-2, kl_target=4.0, kl_open_steps=600
    )
    config.evaluation = EvalConfig(every=250, episodes=2)
    trainer(config, tmp_path).run()
    rows = [row for row in metrics(tmp_path) if row["train/penalty"] and int(row["env_steps"]) > 400]
    targets = [4.0 * (int(row["env_steps"]) - 225) / 600 for row in rows]  # a row averages the 50 steps before it
    assert targets[-1] > 2.5
    # At the networks' rate, 1e-3 here, it is 2.7 to 4.1 times the target.
    assert np.mean([float(row["train/penalty"]) for row in rows]) == pytest.approx(np.mean(targets), rel=0.4)


def test_the_last_actor_is_played_as_it_evaluated_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draws_win(agent: SteeredAgent, *args: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(success_rate=0.2 if agent.deterministic else 0.4, mean_length=1.0)

    monkeypatch.setattr("dsrl.trainer.evaluate_agent", draws_win)
    trainer(settings(train_steps=0), tmp_path).run()
    assert load_steered_agent(tmp_path / "sac_last.zip", ToyPolicy(), deterministic=None).kind == "draw"


@pytest.mark.parametrize("actor_tau", [None, 0.05])
def test_stock_sac_loads_the_archive_and_acts_the_same(actor_tau: float | None, tmp_path: Path) -> None:
    trainer(settings("prior", actor_tau=actor_tau), tmp_path).run()
    model = SAC.load(tmp_path / "sac_last.zip", device="cpu")
    agent = load_steered_agent(tmp_path / "sac_last.zip", ToyPolicy(), deterministic=True)
    obs = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    noise = agent.noise(obs, [])
    assert noise.shape == (5, 2, 2)
    np.testing.assert_allclose(model.predict(obs, deterministic=True)[0], noise.reshape(5, 4), rtol=1e-4, atol=1e-6)


def test_archives_of_the_other_learners_are_read_by_stock_sac_too(tmp_path: Path) -> None:
    for algorithm in ("sac", "na"):
        trainer(settings(algorithm, train_steps=0), tmp_path / algorithm).run()
        assert SAC.load(tmp_path / algorithm / "sac_last.zip", device="cpu").predict(np.zeros((1, 3), np.float32))


def test_a_stochastic_actor_draws_from_each_episodes_own_generator(short_run: Path) -> None:
    agent = load_steered_agent(short_run / "sac_best.zip", ToyPolicy(), deterministic=False)
    obs = np.zeros((2, 3), dtype=np.float32)

    def episode(seed: int) -> Episode:
        return Episode(0, seed, np.random.default_rng(seed))

    together = agent.noise(obs, [episode(1), episode(2)])
    alone = agent.noise(obs[:1], [episode(2)])
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[0], together[1])


def test_the_draw_that_the_critics_value_most_is_played_whatever_else_is_in_the_batch(tmp_path: Path) -> None:
    config = settings("prior", train_steps=40, candidates=8)
    config.learner.hidden_sizes = [128, 128]  # a task's own
    run = trainer(config, tmp_path)
    run.run()
    agent = load_steered_agent(tmp_path / "sac_last.zip", ToyPolicy(), deterministic=False)
    obs = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)

    def noise(n: int) -> np.ndarray:
        return agent.noise(obs[:n], [Episode(i, i, np.random.default_rng(i)) for i in range(n)])

    together = noise(40).reshape(40, 4)
    for n in (1, 5, 16):
        np.testing.assert_array_equal(noise(n).reshape(n, 4), together[:n])
    eps = np.stack([np.random.default_rng(i).standard_normal((8, 4), dtype=np.float32) for i in range(40)])
    normalized = torch.as_tensor(agent.decoder.normalize_obs(obs))
    networks = agent.networks
    each = [networks.actor.sample(normalized, torch.as_tensor(eps[:, k]))[0] for k in range(8)]
    values = torch.stack([networks.critic.values(normalized, draw) for draw in each])  # (8, E, 40, 1)
    wanted = (values.mean(1) - 0.5 * values.std(1, correction=0))[..., 0].argmax(dim=0)
    chosen = torch.stack(each)[wanted, torch.arange(40)].detach()
    np.testing.assert_allclose(config.action_magnitude * chosen.numpy(), together, atol=1e-5)
    assert len(set(wanted.tolist())) > 1


def test_loading_unpickles_nothing(short_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    load_steered_agent(short_run / "sac_best.zip", ToyPolicy())
    trainer(settings("prior"), short_run, resume=True)


def test_the_report_judges_the_actor_and_every_baseline(short_run: Path) -> None:
    config = settings("prior")
    config.evaluation.constant_candidates = 3
    report = write_report(ToyPolicy(), cast(Any, ToyPool()), config, short_run)
    assert len(report) == 7
    assert all(entry["n_episodes"] == 20 for entry in report.values())
    written = json.loads((short_run / "report.json").read_text())
    assert written["agents"] == report
    kept_mean = read_steering(short_run / "sac_best.zip").deterministic_is_better
    assert written["selected"] == ("mean" if kept_mean else "draw")


def rewritten(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of an archive with other values in its description."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == STEERING:
                content = json.dumps({**json.loads(content), **changes}).encode()
            new.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_task": "lift"}, "task 'lift'"),
        ({"obs_dims": {"offset": 3}}, "observations"),
        ({"base_fingerprint": "0"}, "another policy"),
        ({"format_version": 99}, "99"),
        ({"config": {"learner": {"no_such": 1}}}, "no_such"),
    ],
)
def test_an_archive_that_does_not_fit_is_refused(
    short_run: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = rewritten(short_run / "sac_best.zip", tmp_path / "x.zip", **changes)
    with pytest.raises(UserError, match=message):
        load_steered_agent(path, ToyPolicy())


def test_missing_foreign_and_broken_archives_are_refused(short_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_steered_agent(tmp_path / "none.zip", ToyPolicy())
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(UserError, match="zip"):
        load_steered_agent(tmp_path / "text.zip", ToyPolicy())
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(UserError, match="not written by"):
        load_steered_agent(tmp_path / "foreign.zip", ToyPolicy())
    content = (short_run / "sac_best.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="zip"):
        load_steered_agent(tmp_path / "cut.zip", ToyPolicy())


def test_resume_refuses_other_settings(short_run: Path) -> None:
    config = settings("prior")
    config.utd = 3
    with pytest.raises(UserError, match=r"utd 2 -> 3"):
        trainer(config, short_run, resume=True)


def test_a_longer_run_goes_on_from_a_finished_one(short_run: Path, tmp_path: Path) -> None:
    shutil.copytree(short_run, tmp_path / "longer")
    run = trainer(settings("prior", train_steps=300), tmp_path / "longer", resume=True)
    begin = run.env_steps
    run.run()
    assert begin < 500 <= run.env_steps


def test_a_learner_with_the_settings_of_another_is_refused() -> None:
    with pytest.raises(UserError, match="expected SACConfig, found PriorConfig"):
        DSRLConfig(learner=PriorConfig(algorithm="sac"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"utd": 0}, "utd"),
        ({"action_magnitude": 0.0}, "action_magnitude"),
        ({"ddim_steps": 0}, "ddim_steps"),
        ({"action_magnitude": 0.5}, "prior's scale"),
        ({"seed": -1}, "seed"),
        ({"initial_steps": 0}, "initial_steps"),
        ({"train_steps": -5}, "train_steps"),
        ({"learner.ent_coef": "auto_x"}, "--learner.ent_coef"),
        ({"learner.ent_coef": "auto_0"}, "--learner.ent_coef is auto_0"),
        ({"learner.ent_coef": "1..2"}, "--learner.ent_coef"),
        ({"learner.ent_coef": -0.1}, "--learner.ent_coef"),
        ({"learner.kl_target": -1.0}, "learner.kl_target"),
        ({"learner.pessimism": -1.0}, "learner.pessimism"),
        ({"learner.hidden_sizes": [32, 0]}, "learner.hidden_sizes"),
        ({"learner.hidden_sizes": []}, "--learner.hidden_sizes"),
        ({"learner.tau": 2.0}, "--learner.tau"),
        ({"learner.actor_tau": 0.0}, "learner.actor_tau"),
        ({"learner.learning_rate": -1.0}, "learner.learning_rate"),
        ({"learner.actor_delay": 0}, "learner.actor_delay"),
        ({"learner.ent_coef_lr": 0.0}, "learner.ent_coef_lr"),
        ({"learner.min_ent_coef": 2.0, "learner.max_ent_coef": 1.0}, "--learner.min_ent_coef is 2.0"),
        ({"learner.target_entropy": 0.0}, "target_entropy"),  # an option of another learner
        ({"learner.algorithm": "ppo"}, "'ppo': expected one of prior, sac, na"),
        ({"warm_start.noise_scales": []}, "--warm_start.noise_scales"),
        ({"demonstrations.fraction": 1.0}, "--demonstrations.fraction is 1.0"),
        ({"demonstrations.n": 0}, "demonstrations.n"),
        ({"evaluation.constant_steps": 0}, "evaluation.constant_steps"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    values = settings("prior").to_dict()
    for path, value in change.items():
        group, _, name = path.rpartition(".")
        (values[group] if group else values)[name] = value
    with pytest.raises(UserError, match=message):
        config_from_dict(values)


def test_a_state_of_the_format_before_is_refused_and_says_how_to_go_on(short_run: Path, tmp_path: Path) -> None:
    without = tmp_path / "sac_last.zip"
    with zipfile.ZipFile(short_run / "sac_last.zip") as old, zipfile.ZipFile(without, "w") as new:
        for name in old.namelist():
            if name != RUN_STATE:
                new.writestr(name, old.read(name))
    with pytest.raises(UserError, match=r"no state that a run can go on from: .* begin a new run"):
        trainer(settings("prior"), tmp_path, resume=True)
