"""The first minute: what the bare command says, the head of a long help, one name per kind of flag."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.fabric.accelerators import MPSAccelerator as FabricMPSAccelerator
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

import cli
from cli import COMMANDS
from commands.first_words import FIRST_FLAGS, say_train
from commands.front_door import run
from tests.training_toy import ROOT, ForkServer, fit_line, write_toy_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5")


def test_without_words_a_newcomer_reads_three_things_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(COMMANDS, []) == 0
    said = capsys.readouterr().out
    assert "make quickstart" in said
    commands = re.findall(r"python cli\.py (\w+)", said)
    assert {"fit", "evaluate", "dsrl"} <= set(commands) <= set(COMMANDS)
    assert all((ROOT / path).is_file() for path in re.findall(r"configs/\S+", said))


def test_the_installed_name_is_the_same_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/diffusion-steering", "fti"])
    assert cli.main() == 2
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/diffusion-steering", "inspect", "--dtaset", "x"])
    assert cli.main() == 2
    assert "Options: diffusion-steering inspect --help" in capsys.readouterr().err
    installed = Path(sys.executable).with_name("diffusion-steering")
    done = subprocess.run([installed, "--help"], capture_output=True, text=True, cwd=Path.home())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: diffusion-steering <command>")


@pytest.mark.parametrize("command", FIRST_FLAGS)
def test_a_long_help_begins_with_ten_flags_that_the_command_has(cli_server: ForkServer, command: str) -> None:
    asked = cli_server.start([command, "--help"])
    assert asked.wait() == 0, asked.stderr
    head, _, rest = asked.output.read_text().partition("usage: ")
    flags = [line.split()[0] for line in head.splitlines() if line.startswith("  --")]
    assert len(flags) == 10
    assert flags == [flag.split()[0] for flag in FIRST_FLAGS[command]]
    for flag in flags:
        known = COMMANDS[command].other_names.get(flag, flag).partition("=")[0]
        name = known.replace(".init_args.hidden_dims", "")  # an option of the default network
        assert re.search(rf"{re.escape(name)}\b", rest), f"{command} has no {known}"


def test_one_name_per_kind_of_flag_beside_the_names_that_parsers_know(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    folder = str(tmp_path / "run")
    base = fit_line(tmp_path, data)
    shown = cli_server.start([*base, "--dataset", "d.hdf5", f"--output={folder}", "--resume", "--print_config"])
    assert shown.wait() == 0, shown.stderr
    config = yaml.safe_load(shown.output.read_text())
    assert (config["data"]["path"], config["best"]["dirpath"], config["ckpt_path"]) == ("d.hdf5", folder, "last")
    line = ["validate", *base[1:], "--checkpoint", "x.ckpt", "--print_config"]
    judged = cli_server.start(line)
    assert judged.wait() == 0, judged.stderr
    assert yaml.safe_load(judged.output.read_text())["ckpt_path"] == "x.ckpt"
    status, errors = cli_server.run([*base, "--resume=false"])
    assert status == 2
    assert "--resume takes no value" in errors


@pytest.mark.parametrize(
    ("task", "source", "there", "configs"),
    [
        ("can", None, False, ["bc_can", "fast", "human"]),
        ("can", None, True, ["bc_can", "fast", "human"]),
        ("can", "adapted from few.hdf5, seed 0", False, ["bc_can", "fast", "human"]),
        ("can", "adapted from few.hdf5 (scripted expert, proficient, seed 1), seed 0", False, ["bc_can", "fast"]),
        ("can", "machines", False, ["bc_can", "fast"]),
        ("can", "scripted expert, proficient, seed 0", False, ["bc_can", "fast"]),
        ("can", "scripted expert, mixed, seed 0", False, ["bc_can"]),
        ("tool_hang", None, False, ["bc_tool_hang", "fast", "human"]),
        (None, None, False, ["bc_lift"]),
    ],
)
def test_a_data_set_is_followed_by_how_to_train_on_it(
    task: str | None,
    source: str | None,
    there: bool,
    configs: list[str],
    cli_server: ForkServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if there:
        for taken in ("can/last.ckpt", "my file/policy.safetensors", "my file_2/last.ckpt"):
            (tmp_path / "checkpoints/bc" / taken).parent.mkdir(parents=True)
            (tmp_path / "checkpoints/bc" / taken).touch()
    copied = source is not None and "few.hdf5" in source
    say_train(task, Path("data/my file.hdf5"), source, Path("data/a, few.hdf5") if copied else None)
    words = shlex.split(capsys.readouterr().out.partition("cli.py ")[2])
    assert [word for word in words if word.endswith(".yaml")] == [f"configs/{name}.yaml" for name in configs]
    shown = cli_server.start([*words, "--print_config"])
    assert shown.wait() == 0, shown.stderr
    config = yaml.safe_load(shown.output.read_text())
    assert config["data"]["path"] == (["data/a, few.hdf5", "data/my file.hdf5"] if copied else "data/my file.hdf5")
    assert config["best"]["dirpath"] == f"checkpoints/bc/{'my file_3' if there else task or 'my file'}"
    assert config["data"]["task"] == task


@pytest.mark.parametrize("wanted", ["cpu", "mps"])
def test_apples_gpu_is_not_taken_unasked_and_refused_when_asked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wanted: str
) -> None:
    for accelerator_class in (MPSAccelerator, FabricMPSAccelerator):  # Lightning asks the latter what `auto` means
        monkeypatch.setattr(accelerator_class, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: False))
    accelerator = "mps" if wanted == "mps" else "auto"
    line = fit_line(tmp_path / "run", data, trainer__accelerator=accelerator, trainer__fast_dev_run=1)
    status = run(COMMANDS, line)
    errors = capsys.readouterr().err
    if wanted == "cpu":
        assert status == 0, errors
    else:
        assert status == 2
        assert "trainer.accelerator is mps: expected auto, cpu or cuda" in errors


def test_a_tilde_is_the_home_folder_in_every_path(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    (tmp_path / "toy.hdf5").write_bytes(data.read_bytes())
    (tmp_path / "data.yaml").write_text("data: {path: ~/toy.hdf5}\n")
    line = fit_line(Path("~/run"), data, trainer__max_epochs=1)
    line = [word for word in line if not word.startswith("--data.path")] + ["--config=~/data.yaml"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    status, errors = cli_server.run(line, env=home, before=f"import os; os.chdir({str(elsewhere)!r})")
    assert status == 0, errors
    names = {"config.yaml", "last.ckpt", "policy.safetensors"}
    assert names <= {path.name for path in (tmp_path / "run").iterdir()}
    assert not list(elsewhere.iterdir())
    line = ["export", "--checkpoint=~/run/last.ckpt", "--output=~/p.safetensors"]
    status, errors = cli_server.run(line, env=home)
    assert status == 0, errors
    assert (tmp_path / "p.safetensors").is_file()


def test_the_last_word_of_training_is_how_to_judge_its_policy(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    run = cli_server.start(fit_line(tmp_path, data, trainer__max_epochs=1))
    assert run.wait() == 0, run.stderr
    policy = tmp_path / "policy.safetensors"
    assert policy.is_file()
    assert run.output.read_text().splitlines()[-1] == (f"next, judge it: python cli.py evaluate --checkpoint {policy}")
