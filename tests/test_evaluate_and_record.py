"""`evaluate`, `record`, `export` and `plot`, on the real simulator, in this process."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from cli import COMMANDS
from commands.front_door import run
from commands.record import record
from common.errors import UserError
from dsrl.config import DSRLConfig
from envs.rendering import choose_gl
from envs.tasks import default_env_args
from policies import DiffusionPolicy, NetworkConfig, PolicySpec
from tests.worker_threads import worker_threads

LIFT_DIMS = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}


def save_policy(path: Path, task: str | None = "lift", env_args: dict | None = None) -> Path:
    torch.manual_seed(0)
    network = NetworkConfig(init_args={"hidden_dims": [16], "time_dim": 8})
    DiffusionPolicy(PolicySpec(LIFT_DIMS, 7, 4, network, env_args=env_args, task=task)).save(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "lift.safetensors"
    return save_policy(path, env_args=default_env_args("lift"))


@pytest.fixture
def in_process() -> Iterator[None]:
    with worker_threads():
        yield


def test_results_file_says_what_was_judged_and_how(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results.json"
    line = ["evaluate", f"--checkpoint={checkpoint}", "--n_episodes=3", "--horizon=9", "--ddim_steps=2", "--seed=5"]
    assert run(COMMANDS, [*line, f"--output={output}", "--n_envs=2"]) == 0
    results = json.loads(output.read_text())
    assert results["task"] == "lift"
    assert results["checkpoint"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert results["sac"] is None
    assert (results["ddim_steps"], results["noise_scale"], results["seed"], results["n_episodes"]) == (2, 1.0, 5, 3)
    assert len({episode["seed"] for episode in results["episodes"]}) == 3
    assert results["success_rate"] == sum(e["success"] for e in results["episodes"]) / 3
    assert results["mean_length"] == 9  # an untrained policy lifts nothing; failures count at the full horizon
    low, high = results["ci95"]
    assert low == 0
    assert high == pytest.approx(0.5615, abs=1e-3)  # Wilson, 0 of 3
    assert results["versions"]["robosuite"] == "1.4.1"
    assert results["command"].startswith("python")
    places = [episode["object"] for episode in results["episodes"]]
    assert all(abs(x) < 0.03 and abs(y) < 0.03 for x, y, _ in places), "robosuite draws the cube from 6 by 6 cm"
    assert len({tuple(place) for place in places}) == 3
    assert "Lift" in output.with_suffix(".html").read_text()
    assert "success 0.0% (0/3" in capsys.readouterr().out

    again = tmp_path / "one_env.json"
    with worker_threads():
        assert run(COMMANDS, [*line, f"--output={again}", "--n_envs=1"]) == 0
    assert json.loads(again.read_text())["episodes"] == results["episodes"]


@pytest.mark.skipif(choose_gl() is None, reason="neither EGL nor OSMesa is installed: nothing to render with")
@pytest.mark.usefixtures("in_process")
def test_record_writes_one_playable_video_per_episode(checkpoint: Path, tmp_path: Path) -> None:
    line = ["record", f"--checkpoint={checkpoint}", f"--output={tmp_path}", "--n_episodes=2", "--horizon=5"]
    assert run(COMMANDS, [*line, "--size=64"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ep01.mp4", "ep02.mp4"]
    frames = imageio.imread(tmp_path / "ep01.mp4")
    assert frames.shape == (1 + 5 + 20, 64, 64, 3)  # the initial state, each step, the outcome held for a second
    assert frames.std() > 10, "the picture is blank"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint=nowhere.safetensors"], r"nowhere\.safetensors does not exist"),
        (["--checkpoint={c}", "--n_episodes=0"], r"--n_episodes is 0"),
        (["--checkpoint={c}", "--ddim_steps=101"], r"--ddim_steps is 101: .* expected 1 to 100"),
        (["--checkpoint={c}", "--task=can"], r"'can' \(PickPlaceCan\), but the policy's data are of Lift"),
        (["--checkpoint={c}", "--task=cup"], r"unknown task 'cup'"),
        (["--checkpoint={c}", "--horizon=0"], r"horizon is 0"),
        (["--checkpoint={c}", "--output=/proc/results.json"], r"cannot write /proc/results\.json"),
        (["--checkpoint={c}", "--output=results.txt"], r"--output is results\.txt: expected .* \.json"),
        (["--checkpoint={c}", "--n_episode=3"], r"unrecognized arguments|n_episode"),
        (["--checkpoint={c}", "--seed=x"], r"seed"),
        ([], r"checkpoint"),
    ],
)
def test_mistakes_end_in_one_message_and_status_2(
    checkpoint: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(COMMANDS, ["evaluate", *(word.format(c=checkpoint) for word in words)]) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err


def test_a_noise_scale_that_record_would_not_show_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --compare too"):
        record(checkpoint, tmp_path, sac=tmp_path / "sac.zip", noise_scale=0.5)


@pytest.mark.usefixtures("in_process")
def test_checkpoint_that_names_no_task_asks_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nameless = save_policy(tmp_path / "nameless.safetensors", task=None)
    line = ["evaluate", f"--checkpoint={nameless}", "--n_episodes=1", "--horizon=4"]
    assert run(COMMANDS, line) == 2
    assert "Name the task" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="no env_args"):
        assert run(COMMANDS, [*line, "--task=lift"]) == 0
    assert f"record --checkpoint {nameless} --task lift --output" in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
def test_checkpoint_of_another_tasks_dims_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = save_policy(tmp_path / "wrong.safetensors", env_args=default_env_args("can"), task="can")
    assert run(COMMANDS, ["evaluate", f"--checkpoint={wrong}", "--n_episodes=1", "--horizon=4"]) == 2
    error = capsys.readouterr().err
    assert "object" in error
    assert "14" in error


def test_plot_draws_every_run_below_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version, steps in (("version_0", range(5)), ("version_1", range(5, 9))):  # a run and its resumption
        with SummaryWriter(str(tmp_path / "runs" / version)) as writer:
            for step in steps:
                writer.add_scalar("train/loss", 1 / (step + 1), step)
    assert run(COMMANDS, ["plot", f"--logdir={tmp_path / 'runs'}", f"--output={tmp_path / 'plot.svg'}"]) == 0
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("train/loss", "version_0", "version_1"))
    line = ["plot", f"--logdir={tmp_path / 'runs'}", f"--output={tmp_path / 'plot.png'}", "--tags=[val/loss]"]
    assert run(COMMANDS, line) == 2
    assert "no scalars val/loss" in capsys.readouterr().err
    assert not (tmp_path / "plot.png").exists()


def test_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(COMMANDS, ["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)
    assert run(COMMANDS, ["trian"]) == 2
    assert "unknown command 'trian'" in capsys.readouterr().err


def test_switch_needs_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []

    def steer(config: DSRLConfig, bc_checkpoint: Path, resume: bool = False) -> None:
        seen.append((resume, config.utd))

    monkeypatch.setattr("commands.dsrl.steer", steer)
    for line in (["--resume"], ["--resume", "--utd", "3"], ["--resume", "false"], []):
        assert run(COMMANDS, ["dsrl", "--bc_checkpoint=x", *line]) == 0
    assert seen == [(True, 5), (True, 3), (False, 5), (False, 5)]
