"""The dsrl command in the real simulator: a whole run, what it leaves behind, and a user's mistakes."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from commands.dsrl import dsrl, named_learner, steer
from commands.evaluate import evaluate
from common.errors import UserError
from common.lock import run_lock
from dsrl.archive import read_steering
from dsrl.config import DSRLConfig, EnvConfig, EvalConfig, WarmStartConfig
from dsrl.learners.prior import PriorConfig
from envs.tasks import default_env_args
from policies import DiffusionPolicy, PolicySpec
from policies.schedule import DiffusionConfig
from policies.spec import NetworkConfig
from tests.training_toy import ForkServer, wait_for


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Lift policy."""
    torch.manual_seed(0)
    spec = PolicySpec(
        obs_dims={"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10},
        action_dim=7,
        pred_horizon=4,
        network=NetworkConfig(init_args={"hidden_dims": [16]}),
        diffusion=DiffusionConfig(num_train_timesteps=10, ddim_steps=2),
        env_args=default_env_args("lift"),
        task="lift",
    )
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    DiffusionPolicy(spec).save(path)
    return path


def run(checkpoint: Path, output: Path, train_steps: int = 80, resume: bool = False, utd: int = 1) -> None:
    config = DSRLConfig(
        task="lift",
        action_magnitude=2.0,
        initial_steps=80,
        train_steps=train_steps,
        utd=utd,
        learner=PriorConfig(hidden_sizes=[16], batch_size=8, buffer_size=1000),
        env=EnvConfig(horizon=20),
        warm_start=WarmStartConfig(noise_scales=[1.0, 0.5], critic_updates=2),
        evaluation=EvalConfig(every=80, episodes=1, report_episodes=1, constant_candidates=1, constant_steps=20),
    )
    steer(config, checkpoint, output, resume, device="cpu")


@pytest.fixture(scope="module")
def finished(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of a finished run on a machine of one CPU, and what it printed."""
    folder, said = tmp_path_factory.mktemp("run") / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr("envs.pool.available_cpus", lambda: 1)
        run(checkpoint, folder, resume=True)  # as a script of a cluster names it from the first start on
    return folder, said.getvalue()


def test_a_run_leaves_archives_settings_metrics_and_a_report_and_can_be_extended(
    checkpoint: Path,
    finished: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "run")
    assert {path.name for path in output.iterdir()} == {
        ".lock",
        "config.yaml",
        "metrics.csv",
        "provenance.json",
        "report.html",
        "report.json",
        "sac_best.zip",
        "sac_last.zip",
        "tensorboard",
    }
    assert f"there is no {finished[0] / 'sac_last.zip'} yet, so the run begins" in finished[1]
    report = json.loads((output / "report.json").read_text())["agents"]
    assert {"base, w ~ N(0, I)", "base, w = 0", "base, best constant w", "steered, actor's mean"} <= set(report)
    assert "warm start, w ~ 0.5 N(0, I): success" in finished[1]
    config = yaml.safe_load((output / "config.yaml").read_text())
    assert config["learner"]["algorithm"] == "prior"
    assert config["env"]["n_envs"] == 1, "as many as CPUs, wherever it is resumed"
    kept = read_steering(output / "sac_best.zip").config
    assert kept.env.horizon == 20, "whatever the task's is by then"
    assert kept.ddim_steps == 2, "the policy's own"
    with pytest.raises(UserError, match="utd 1 -> 2"):
        run(checkpoint, output, resume=True, utd=2)
    assert yaml.safe_load((output / "config.yaml").read_text()) == config, "a refused resume leaves it alone"
    with pytest.raises(UserError, match="holds a run already"):
        run(checkpoint, output)
    monkeypatch.setattr("envs.pool.available_cpus", lambda: 2)
    run(checkpoint, output, train_steps=160, resume=True)
    assert "resumed at 160 env steps" in capsys.readouterr().out
    assert yaml.safe_load((output / "config.yaml").read_text())["env"] == config["env"], "as many on another machine"
    assert (output / "metrics.csv").read_text().count("\n") > 3
    starts = json.loads((output / "provenance.json").read_text())
    assert len(starts["starts"]) == 2, "what was resumed was begun as well"
    assert starts["changed"]["env.horizon"] == 20
    page = (output / "report.html").read_text()
    assert "resumed by" in page
    assert "Initial states: base" in page


def test_a_run_that_a_cluster_ends_says_where_it_would_go_on(
    cli_server: ForkServer, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    line = ["dsrl", "--config=configs/debug/dsrl_fast.yaml", "--task=lift", f"--bc_checkpoint={checkpoint}"]
    line += [
        f"--output={folder}",
        "--resume",
        "--train_steps=100000",
        "--evaluation.every=100000",
        "--initial_steps=100",
    ]
    run = cli_server.start(line)
    wait_for(folder / "sac_last.zip")
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    assert re.search(r"^stopped at [\d,]+ env steps; saved at [\d,]+ env steps: --resume", run.output.read_text(), re.M)


@pytest.mark.parametrize("resume", [False, True])
def test_results_are_not_overwritten_where_there_is_no_state_to_go_on_from(
    checkpoint: Path, finished: tuple[Path, str], tmp_path: Path, resume: bool
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "run")
    (output / "sac_last.zip").unlink()
    best = (output / "sac_best.zip").read_bytes()
    with pytest.raises(UserError, match=r"holds sac_best\.zip and report\.json, and no sac_last\.zip to go on from"):
        run(checkpoint, output, resume=resume)
    (output / "report.json").unlink()  # as of a run that was not judged, or of an archive that was copied there
    with pytest.raises(UserError, match=r"holds sac_best\.zip, and no sac_last\.zip to go on from"):
        run(checkpoint, output, resume=resume)
    assert (output / "sac_best.zip").read_bytes() == best


def test_a_run_goes_on_with_its_own_folder_alone(checkpoint: Path, finished: tuple[Path, str], tmp_path: Path) -> None:
    output = shutil.copytree(finished[0], tmp_path / "run")
    half = output / ".sac_last.zip.0123456789ab.partial"  # of a run that was killed
    half.touch()
    best = output / "sac_best.zip"
    before = best.read_bytes()
    run(checkpoint, output, resume=True)
    assert best.read_bytes() == before, "its SHA-256 stands in results"
    assert not half.exists()
    (output / "policy.safetensors").touch()  # a copy of its base, as `pretrained/` has one
    run(checkpoint, output, resume=True)
    for name in ("policy.safetensors", "last.ckpt", "epoch0010-success0.500.ckpt"):
        cloned = tmp_path / name / "cloned"
        cloned.mkdir(parents=True)
        (cloned / name).touch()
        with pytest.raises(UserError, match=rf"holds {re.escape(name)}, of a run of `fit`"):
            run(checkpoint, cloned)
        assert [path.name for path in cloned.iterdir() if path.name != ".lock"] == [name]


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_steered_policy_is_judged_by_the_actor_the_steps_and_the_horizon_it_was_kept_for(
    checkpoint: Path,
    finished: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deterministic: bool,
) -> None:
    archive = finished[0] / "sac_best.zip"
    steering = read_steering(archive)
    if deterministic != steering.deterministic_is_better:  # else the archive is played as the run left it
        config = replace(steering.config, ddim_steps=1)
        steering = replace(steering, deterministic_is_better=deterministic, config=config)
        monkeypatch.setattr("dsrl.archive.read_steering", lambda path: steering)
        monkeypatch.setattr("dsrl.agent.read_steering", lambda path: steering)
    output = tmp_path / "results.json"
    evaluate(checkpoint, sac=archive, n_episodes=1, n_envs=1, output=output)
    results = json.loads(output.read_text())
    played = (results["actor"], results["ddim_steps"], results["horizon"])
    assert played == ("mean" if deterministic else "draw", steering.config.ddim_steps, 20)
    assert results["sac"]["path"] == str(archive)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_generators_cannot_take_is_refused(checkpoint: Path, tmp_path: Path, seed: int) -> None:
    with pytest.raises(UserError, match=f"--seed is {seed}: expected 0 to 4294967295"):
        steer(DSRLConfig(seed=seed), checkpoint, tmp_path / "run")


def test_a_checkpoint_of_another_task_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can"):
        steer(DSRLConfig("can"), checkpoint, tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        steer(DSRLConfig(), checkpoint, tmp_path / "file" / "run")


def test_two_runs_in_one_folder_are_refused_before_the_first_has_saved_anything(
    checkpoint: Path, tmp_path: Path
) -> None:
    with run_lock(tmp_path), pytest.raises(UserError, match="in use by another run"):
        run(checkpoint, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_refused_setting_leaves_no_folder(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"utd\W+Not of type PositiveInt: 0"):
        dsrl(["dsrl", "--bc_checkpoint", str(checkpoint), "--utd", "0", "--output", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device is cuda: expected auto, cpu or cuda"):
        steer(DSRLConfig(), checkpoint, tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


def test_the_learner_that_a_line_names_last_decides_about_its_options(tmp_path: Path) -> None:
    (tmp_path / "na.yaml").write_text("learner:\n  algorithm: na\n")
    (tmp_path / "other.yaml").write_text("utd: 3\n")
    files = [f"--config={tmp_path}/na.yaml", "--config", f"{tmp_path}/other.yaml"]
    assert named_learner([]) == named_learner(["--config"]) == "prior"
    assert named_learner(["--learner.algorithm=sac"]) == "sac"
    assert named_learner([*files, "--utd", "2"]) == "na"
    assert named_learner(["--learner.algorithm", "sac", *files]) == "na"
    assert named_learner([*files, "--learner.algorithm", "sac"]) == "sac"
    assert named_learner(["--learner", '{"algorithm": "sac"}', "--utd", "2"]) == "sac"
    assert named_learner(["--learner", "["]) == "prior", "the parser says what is wrong"
    with pytest.raises(UserError, match="kl_target"):
        dsrl(["dsrl", *files, "--bc_checkpoint", "x", "--learner.kl_target", "3"])
