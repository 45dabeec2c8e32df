"""A user's mistake ends with one message on stderr and exit status 2, whichever command it reaches first."""

import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from commands.front_door import files_first
from commands.train import train
from envs.tasks import default_env_args
from policies.storage import POLICY_FILE
from tests.training_toy import OBS_DIMS, ROOT, ForkServer, fit_line, write_toy_dataset


def one_message(status: int, errors: str) -> str:
    """The message, if that is all there is."""
    assert "Traceback" not in errors, errors
    assert status == 2, errors
    assert errors.startswith("error: "), errors
    assert errors.count("error: ") == 1, errors
    return errors


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5")


@pytest.fixture(scope="module")
def trained(cli_server: ForkServer, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    status, errors = cli_server.run(fit_line(folder, data, trainer__max_epochs=1))
    assert status == 0, errors
    return folder


def spoil(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return apply


def shorten(file: h5py.File, key: str, length: int) -> None:
    values = file[key][:length]
    del file[key]
    file[key] = values


def shorten_all(file: h5py.File) -> None:
    for name in file["data"]:
        demonstration = file["data"][name]
        for key in ("actions", "states", "rewards", "dones", *(f"obs/{key}" for key in demonstration["obs"])):
            shorten(demonstration, key, 3)
        del demonstration["next_obs"]


BAD_DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no such file"),
    "not hdf5": (lambda path: path.write_text("hello"), "cannot be opened as hdf5"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "truncated"),
    "without data": (spoil(lambda file: file.move("data", "records")), "no group 'data'"),
    "no demonstrations": (spoil(lambda file: file["data"].clear()), "no demonstrations"),
    "missing key": (spoil(lambda file: file.__delitem__("data/demo_0/obs/object")), "object"),
    "nan": (spoil(lambda file: file["data/demo_1/actions"].__setitem__((2, 3), np.nan)), "NaN"),
    "unequal": (spoil(lambda file: shorten(file, "data/demo_1/actions", 4)), "unequal length"),
    "too short": (spoil(shorten_all), "shorter than pred_horizon 4"),
}


@pytest.mark.parametrize("fault", BAD_DATA)
def test_bad_data(cli_server: ForkServer, data: Path, tmp_path: Path, fault: str) -> None:
    damage, expected = BAD_DATA[fault]
    path = tmp_path / "bad.hdf5"
    path.write_bytes(data.read_bytes())
    damage(path)
    message = one_message(*cli_server.run(fit_line(tmp_path / "run", path)))
    assert expected in message
    assert str(path) in message
    assert not list((tmp_path / "run").glob("*.ckpt"))


BAD_FLAGS: dict[str, tuple[dict[str, object], str]] = {
    "unknown flag": ({"model__learning_rate": 1}, "learning_rate"),
    "mistyped value": ({"model__lr": "fast"}, "lr"),
    "unknown schedule": ({"model__lr_schedule": "linear"}, "linear"),
    "mistyped size": ({"data__batch_size": "many"}, "batch_size"),
    "no batch": ({"data__batch_size": 0}, "data.batch_size is 0"),
    "no horizon": ({"data__pred_horizon": 0}, "data.pred_horizon is 0"),
    "empty keys": ({"data__obs_keys": "[]"}, "data.obs_keys is empty"),
    "no filter key": ({"data__train_filter_key": "20_percent"}, "no filter key '20_percent'"),
    "too few demonstrations": ({"data__n_demos": 40}, "data.n_demos is 40"),
    "unknown key": ({"data__obs_keys": "[objcet]"}, "Those there: object, robot0_eef_pos"),
    "unknown task": ({"data__task": "lfit"}, "lfit"),
    "another task": ({"data__task": "can"}, "the task is given as 'can'"),
    "decay": ({"ema__decay": 1.5}, "1.5"),
    "ddim steps": ({"model__diffusion__ddim_steps": 200}, "200"),
    "spacing": ({"model__diffusion__spacing": "middle"}, "middle"),
    "unknown network": ({"model__network": "nowhere.Net"}, "nowhere.Net"),
    "a function as network": ({"model__network__class_path": "os.system"}, "--model.network: "),
    "no network": ({"model__network": "torch.nn.Linear"}, "torch.nn.Linear"),
    "no accelerator": ({"trainer__accelerator": "quantum"}, "quantum"),
    "precision": ({"trainer__precision": "12"}, "12"),
    "no devices": ({"trainer__devices": 0}, "devices"),
    "episodes": ({"rollout__n_episodes": 0}, "rollout.n_episodes"),
    "environments": ({"rollout__n_envs": 0}, "rollout.n_envs is 0"),
    "odd embedding": ({"model__network__init_args__time_dim": 5}, "time_dim is 5"),
    "endless cosine": ({"trainer__max_epochs": -1, "trainer__max_time": "00:00:01:00"}, "needs to know how long"),
    "config": ({"config": "nowhere.yaml"}, "nowhere.yaml"),
    "checkpoint": ({"ckpt_path": "nowhere.ckpt"}, "nowhere.ckpt is no file"),
    "best checkpoint": ({"ckpt_path": "best"}, "best is no file"),
    "no checkpoint": ({"ckpt_path": ""}, "--ckpt_path is given an empty value"),
    "negative seed": ({"seed_everything": -1}, "seed_everything is -1"),
    "negative rate": ({"model__lr": -1}, "model.lr is -1.0"),
    "no number": ({"model__lr": "abc"}, "--model.lr: Expected float. Got value: abc"),
    "no number, of several words": ({"model__lr": "one, two"}, "--model.lr: Expected float. Got value: one, two\n"),
    "no whole number": ({"trainer__max_epochs": "ten"}, "--trainer.max_epochs: Expected int or null. Got value: ten\n"),
    "no list": (
        {"model__network__init_args__hidden_dims": 16},
        "error: --model.network.init_args.hidden_dims: Expected Sequence. Got value: 16\n",
    ),
    "no logger": (
        {"trainer__logger": "foo"},
        "error: --trainer.logger: Expected import path or Iterable or bool or null. Got value: foo\n",
    ),
    "shortened": ({"trainer__max_epoch": 3}, "Is --trainer.max_epochs meant in place of --trainer.max_epoch?"),
    "mistyped section": ({"model__netwrk": "x"}, "Is --model.network meant in place of --model.netwrk?"),
    "mistyped": ({"modle__lr": 1}, "Is --model.lr meant in place of --modle.lr?"),
    "mistyped name": ({"datset": 1}, "Is --dataset meant in place of --datset?"),
    "mistyped switch": ({"resum": 1}, "Is --resume meant in place of --resum?"),
}


@pytest.mark.parametrize("fault", BAD_FLAGS)
def test_bad_flags(cli_server: ForkServer, data: Path, tmp_path: Path, fault: str) -> None:
    flags, expected = BAD_FLAGS[fault]
    message = one_message(*cli_server.run(fit_line(tmp_path / "run", data, **flags)))
    assert expected in message
    assert not list((tmp_path / "run").glob("*.ckpt"))


def test_flags_are_called_as_the_line_calls_them(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    line = fit_line(tmp_path / "run", data)
    assert "argument --output: expected one argument" in one_message(*cli_server.run([*line, "--output"]))
    assert "--output is given an empty value" in one_message(*cli_server.run([*line, "--output", ""]))
    assert "--output is given an empty value" in one_message(*cli_server.run([*line, "--output="]))
    for words in (["--resume", "last"], ["--resume=true"]):
        assert "--resume takes no value" in one_message(*cli_server.run([*line, *words]))


def test_what_is_typed_holds_over_every_config_wherever_it_stands(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    command, _, path, *flags = fit_line(tmp_path / "run", data, trainer__max_epochs=1)
    status, errors = cli_server.run([command, *flags, f"-c{path}"])
    assert status == 0, errors
    assert (tmp_path / "run" / POLICY_FILE).is_file()
    early = ["--seed", "3", "--config", "a", "--run", "x", "--config=b", "-c", "d", "--resume", "-ce"]
    assert files_first(early) == [*early[2:4], "--config=b", "-c", "d", "-ce", "--seed", "3", "--run", "x", "--resume"]
    assert files_first(["--extra.bc", "-c d"]) == ["--extra.bc", "-c d"], "words for another command"


def test_fit_and_dsrl_leave_one_another_alone(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/sac_last.zip").touch()
    for more in ([], ["--overwrite"]):
        message = one_message(*cli_server.run([*fit_line(tmp_path / "run", data), *more]))
        assert "holds sac_last.zip, of a run of `dsrl`" in message
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["sac_last.zip"]


def test_a_config_may_come_through_a_pipe(data: Path, tmp_path: Path) -> None:
    command, _, config, *flags = fit_line(tmp_path / "run", data, trainer__fast_dev_run=1)
    words = shlex.join(flags)
    line = f"{sys.executable} cli.py {command} --config <(cat {config}) {words}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settings_of_a_learner_are_mistaken_in_one_line(cli_server: ForkServer) -> None:
    line = ["dsrl", "--config", "configs/dsrl_lift.yaml", "--bc_checkpoint", "x"]
    message = one_message(*cli_server.run([*line, "--env.n_envs", "two"]))
    assert message.startswith("error: --env.n_envs: Expected PositiveInt or null. Got value: two\n")
    message = one_message(*cli_server.run([*line, "--log_formats", "[foo]"]))
    assert message.startswith("error: --log_formats: Expected ")
    assert message.count("Got value") == 1
    message = one_message(*cli_server.run([*line, "--config", "configs/dsrl_lift_sac.yaml"]))
    others = "--learner.kl_target is an option of the learner prior, and this run's is sac"
    assert others in message
    sac = ["dsrl", "--task", "lift", "--bc_checkpoint", "x", "--learner.algorithm", "sac"]
    assert others in one_message(*cli_server.run([*sac, "--learner.kl_target", "3"]))
    assert "Is --learner.tau meant" in one_message(*cli_server.run([*sac, "--learner.taue", "3"]))
    message = one_message(*cli_server.run(["dsrl", "--seed", "3", *line[1:]]))
    assert "checkpoint x does not exist" in message


def test_the_help_that_a_mistake_names_is_there(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    message = one_message(*cli_server.run(fit_line(tmp_path / "run", data, model__learning_rate=1)))
    assert message.endswith("\nOptions: python cli.py fit --help\n")
    assert "Options" not in one_message(*cli_server.run(fit_line(tmp_path / "run", data, data__batch_size=0)))


def test_a_fit_that_names_no_config_is_told_which_there_are(cli_server: ForkServer, data: Path) -> None:
    for line in (["fit"], ["fit", "--data.path", str(data)]):
        message = one_message(*cli_server.run(line))
        assert "--config configs/bc_lift.yaml" in message
        assert "Parser key" not in message


@pytest.mark.parametrize("kernels", [True, False])
def test_bf16_on_a_cpu_without_kernels_for_it_is_warned_of(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512" if kernels else "AVX2")
    line = fit_line(tmp_path / "run", data, trainer__precision="bf16-mixed", trainer__fast_dev_run=1)
    with warnings.catch_warnings(record=True) as caught:
        train([str(word) for word in line])
    assert any("bf16-mixed on a CPU" in str(warning.message) for warning in caught) != kernels


def test_a_checkpoint_of_other_dimensions(cli_server: ForkServer, trained: Path, tmp_path: Path) -> None:
    other = write_toy_dataset(tmp_path / "other.hdf5", obs_dims={"robot0_eef_pos": 3, "object": 14})
    line = fit_line(tmp_path, other, ckpt_path=trained / "last.ckpt", predictions__output=tmp_path / "p.npz")
    for command in ("fit", "validate", "test", "predict"):
        message = one_message(*cli_server.run([command, *line[1:]]))
        assert "does not fit this run" in message
        assert "'object': 5" in message
        assert "'object': 14" in message


def test_a_resumed_run_with_another_learning_rate(
    cli_server: ForkServer, data: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("of the run so far")
    line = fit_line(tmp_path, data, ckpt_path=trained / "last.ckpt", model__lr=0.5)
    message = one_message(*cli_server.run(line))
    assert "lr 0.001" in message
    assert "0.5" in message
    assert (tmp_path / "config.yaml").read_text() == "of the run so far"


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("data__batch_size", 16, "data.global_batch_size"),
        ("data__pad_end", "true", "data.pad_end"),
        ("data__path", "other", "data.data_sha256"),
        ("trainer__accumulate_grad_batches", 2, "trainer.accumulate_grad_batches"),
    ],
)
def test_a_resumed_run_with_other_data(
    cli_server: ForkServer, data: Path, trained: Path, tmp_path: Path, flag: str, value: object, named: str
) -> None:
    if value == "other":
        value = write_toy_dataset(tmp_path / "other.hdf5", seed=5)
    line = fit_line(tmp_path, data, ckpt_path=trained / "last.ckpt", **{flag: value})
    message = one_message(*cli_server.run(line))
    assert f"with a run of {named} " in message
    assert "start a new run without --resume" in message


def test_observations_in_another_order(cli_server: ForkServer, data: Path, trained: Path, tmp_path: Path) -> None:
    line = fit_line(tmp_path, data, ckpt_path=trained / "last.ckpt", data__obs_keys=json.dumps(list(OBS_DIMS)[::-1]))
    for command in ("fit", "validate"):
        message = one_message(*cli_server.run([command, *line[1:]]))
        assert "it has obs_dims {'robot0_eef_pos': 3, 'object': 5}, data and config say {'object': 5," in message


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_commands_that_judge_a_checkpoint_and_held_out_data(
    cli_server: ForkServer, data: Path, trained: Path, tmp_path: Path, command: str
) -> None:
    line = [command, *fit_line(tmp_path, data)[1:], "--predictions.output", str(tmp_path / "p.npz")]
    assert f"{command} needs a checkpoint" in one_message(*cli_server.run(line))
    assert f"{tmp_path / 'last.ckpt'} does not exist" in one_message(*cli_server.run([*line, "--ckpt_path", "last"]))
    exported = str(trained / "policy.safetensors")
    assert f"{exported} is a policy alone" in one_message(*cli_server.run([*line, "--checkpoint", exported]))
    trained_line = [*line, "--ckpt_path", str(trained / "last.ckpt"), "--data.val_filter_key", "null"]
    assert f"{command} needs demonstrations that were held out" in one_message(*cli_server.run(trained_line))


def test_files_of_different_simulators(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    other = write_toy_dataset(tmp_path / "o.hdf5", env_args=default_env_args("lift") | {"env_version": "1.4.0"})
    message = one_message(*cli_server.run(fit_line(tmp_path / "run", data, data__path=f"[{data},{other}]")))
    assert f'{other} has env_version "1.4.0", {data} "1.4.1"' in message


@pytest.mark.parametrize("value", [None, -1, "three", {}])
def test_a_checkpoint_whose_counters_are_damaged(
    cli_server: ForkServer, data: Path, trained: Path, tmp_path: Path, value: object
) -> None:
    content = torch.load(trained / "last.ckpt", weights_only=True)
    content["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] = value
    torch.save(content, tmp_path / "damaged.ckpt")
    line = fit_line(tmp_path / "run", data, ckpt_path=tmp_path / "damaged.ckpt")
    message = one_message(*cli_server.run(line))
    assert f"loops.fit_loop.epoch_progress.current.completed is {value!r}, expected int" in message


def test_files_that_are_no_checkpoint(cli_server: ForkServer, data: Path, trained: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.ckpt"
    half.write_bytes((trained / "last.ckpt").read_bytes()[:3000])
    tensor = tmp_path / "tensor.ckpt"
    torch.save(torch.zeros(3), tensor)
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}, "epoch": 0}, other)
    for path in (half, tensor, other, data):
        line = fit_line(tmp_path / "run", data, ckpt_path=path)
        for command in (line, ["export", "--checkpoint", str(path), "--output", str(tmp_path / "p.safetensors")]):
            assert str(path) in one_message(*cli_server.run(command))
    assert not (tmp_path / "p.safetensors").exists()


def test_a_checkpoint_of_another_format_version(
    cli_server: ForkServer, data: Path, trained: Path, tmp_path: Path
) -> None:
    content = torch.load(trained / "last.ckpt", weights_only=True)
    content["policy_spec"]["format_version"] = 0
    torch.save(content, tmp_path / "old.ckpt")
    for line in (
        fit_line(tmp_path / "run", data, ckpt_path=tmp_path / "old.ckpt"),
        ["export", "--checkpoint", str(tmp_path / "old.ckpt"), "--output", str(tmp_path / "p.safetensors")],
        ["evaluate", "--checkpoint", str(tmp_path / "old.ckpt")],
    ):
        message = one_message(*cli_server.run(line))
        assert "format 0" in message
        assert "reads format 1" in message


def test_outputs_that_cannot_be_written(cli_server: ForkServer, data: Path, trained: Path, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("x")
    checkpoint = ["--checkpoint", str(trained / "last.ckpt")]
    lines = [
        fit_line(in_the_way / "run", data),
        fit_line(tmp_path / "run", data, trainer__logger="true", trainer__default_root_dir=in_the_way / "logs"),
        ["export", *checkpoint, "--output", str(in_the_way / "p.safetensors")],
        ["evaluate", *checkpoint, "--output", str(in_the_way / "results.json")],
        ["collect", "--task", "lift", "--n_demos", "1", "--output", str(tmp_path)],
    ]
    for line in lines:
        assert f"cannot write {tmp_path}" in one_message(*cli_server.run(line))


@pytest.mark.parametrize("command", ["export", "evaluate", "record"])
def test_plain_commands(cli_server: ForkServer, command: str) -> None:
    meant = one_message(*cli_server.run([command, "--chekpoint", "x"]))
    assert "Is --checkpoint meant in place of --chekpoint?" in meant
    assert "(each value follows its flag; several files are one: '[a.hdf5, b.hdf5]')" in one_message(
        *cli_server.run([command, "x.ckpt"])
    )
    assert "required: --checkpoint" in one_message(*cli_server.run([command]))
    styled = one_message(*cli_server.run(["collect", "--task=lift", "--n_demos=1", "--output=x.hdf5", "--style=good"]))
    assert "--style: Expected one of 'proficient', 'mixed' or null. Got value: good\n" in styled
    assert "required: --n_demos, --output\n" in one_message(*cli_server.run(["collect", "--task", "lift"]))


def test_files_left_beside_the_front_door_are_not_pythons_own(tmp_path: Path) -> None:
    for name in ("copy", "json", "inspect"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('this {name}.py is not Python's')\n")
    shutil.copy(ROOT / "cli.py", tmp_path)
    for package in ("commands", "common"):
        shutil.copytree(ROOT / package, tmp_path / package)
    line = [sys.executable, str(tmp_path / "cli.py"), "fti"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert "unknown command 'fti'" in one_message(done.returncode, done.stderr)


@pytest.mark.parametrize("words", [["--help"], ["inspect", "--help"]])
def test_a_reader_that_has_gone_ends_the_program_quietly(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    # Without a buffer argparse itself notices, and keeps it to itself.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    line = [sys.executable, "cli.py", *words]
    with open(writer, "w") as output:
        done = subprocess.run(line, cwd=ROOT, env=env, stdout=output, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_python_without_the_packages_is_told_where_they_are() -> None:
    line = [sys.executable, "-S", "cli.py", "inspect", "--dataset", "x"]  # no site-packages
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert "source .venv/bin/activate" in one_message(done.returncode, done.stderr)


def test_the_real_front_door() -> None:
    for words, expected in ((["fti"], "unknown command 'fti'"), (["inspect", "--dataset", "nowhere.hdf5"], "no such")):
        done = subprocess.run([sys.executable, "cli.py", *words], cwd=ROOT, capture_output=True, text=True)
        assert expected in one_message(done.returncode, done.stderr)
