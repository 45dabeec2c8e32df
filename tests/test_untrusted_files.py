"""Files from strangers are data: none of ours runs code when it is loaded."""

import json
import os
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from datamodules.robomimic_datamodule import RobomimicDataModule
from policies import load_policy
from tests.training_toy import OBS_DIMS, ForkServer, fit_line, write_toy_dataset


class Touch:
    """Unpickled, it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def run(cli_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its data."""
    folder = tmp_path_factory.mktemp("run")
    data = write_toy_dataset(folder / "toy.hdf5")
    status, errors = cli_server.run(fit_line(folder, data, trainer__max_epochs=1))
    assert status == 0, errors
    return folder


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def test_the_trap_works(marker: Path) -> None:
    pickle.loads(pickle.dumps(Touch(marker)))
    assert marker.exists()


def traps(run: Path, marker: Path, folder: Path) -> list[Path]:
    """A sound checkpoint with the trap in three places, and bare pickles."""
    paths = []
    for number, keys in enumerate((("state_dict", "x"), ("hyper_parameters", "network"), ("callbacks", "EMA"))):
        content = torch.load(run / "last.ckpt", weights_only=True)
        content[keys[0]][keys[1]] = Touch(marker)
        paths.append(folder / f"trap{number}.ckpt")
        torch.save(content, paths[-1])
    paths.append(folder / "legacy.ckpt")
    torch.save(content, paths[-1], _use_new_zipfile_serialization=False)
    paths.append(folder / "bare.ckpt")
    paths[-1].write_bytes(pickle.dumps(Touch(marker)))
    return paths


def test_checkpoints_with_malicious_pickles_are_refused(
    cli_server: ForkServer, run: Path, marker: Path, tmp_path: Path
) -> None:
    for path in traps(run, marker, tmp_path):
        fit = fit_line(tmp_path / "run", run / "toy.hdf5", ckpt_path=path)
        lines = [
            [*fit, "--weights_only=false"],
            ["validate", *fit[1:]],
            ["export", "--checkpoint", str(path), "--output", str(tmp_path / "p.safetensors")],
            ["evaluate", "--checkpoint", str(path), "--n_episodes", "1"],
            ["record", "--checkpoint", str(path), "--output", str(tmp_path / "videos")],
        ]
        for line in lines if path.name == "trap0.ckpt" else lines[:1] + lines[2:3]:
            status, errors = cli_server.run(line)
            assert status == 2, errors
            assert str(path) in errors
            assert "Traceback" not in errors
            assert not marker.exists(), f"{line[0]} executed {path.name}"


def test_a_last_checkpoint_with_a_trap_is_refused(
    cli_server: ForkServer, run: Path, marker: Path, tmp_path: Path
) -> None:
    traps(run, marker, tmp_path)[0].rename(tmp_path / "last.ckpt")
    status, errors = cli_server.run(fit_line(tmp_path, run / "toy.hdf5", ckpt_path="last"))
    assert (status, marker.exists()) == (2, False), errors
    assert "refused" in errors


def test_a_pickle_named_safetensors(marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(UserError, match="not a policy file"):
        load_policy(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "class_path",
    [
        "os.system",
        "antigravity.Net",
        "trap_module.Net",
        "trap_network.Net",
        "policies.nowhere.Net",
        "trap_package.inside.Net",
        "trap_module",
        "",
        "..Net",
        "sys.exit",
    ],
)
def test_a_policy_that_names_something_else_than_a_network(
    run: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, class_path: str
) -> None:
    side_effect = f"open({str(marker)!r}, 'w')\n"
    (tmp_path / "trap_module.py").write_text(side_effect + "class Net: pass\n")
    sound = "from policies.networks import NoiseNetwork\nclass Net(NoiseNetwork): pass\n"
    (tmp_path / "trap_network.py").write_text(side_effect + sound)
    (tmp_path / "trap_package").mkdir()
    (tmp_path / "trap_package/__init__.py").write_text(side_effect)
    (tmp_path / "trap_package/inside.py").write_text("class Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "p.safetensors"
    load_policy(run / "last.ckpt").save(path)
    policy = load_policy(path)
    values = policy.spec.to_dict() | {"network": {"class_path": class_path, "init_args": {}}}
    save_file(load_file(path), path, metadata={"policy": json.dumps(values)})
    with pytest.raises(UserError, match="class_path"):
        load_policy(path)
    assert not marker.exists()
    assert "antigravity" not in sys.modules


def test_pickles_inside_a_data_set_are_left_alone(run: Path, marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    path.write_bytes((run / "toy.hdf5").read_bytes())
    trap = np.void(pickle.dumps(Touch(marker)))
    with h5py.File(path, "r+") as file:
        for holder in (file, file["data"], file["data/demo_0"], file["data/demo_0/actions"]):
            holder.attrs["trap"] = trap
        file["data/demo_0"].attrs["model_file"] = trap
        file.create_dataset("mask/trap", data=np.array([pickle.dumps(Touch(marker)).hex().encode()]))
    data = RobomimicDataModule(str(path), "lift", list(OBS_DIMS))
    data.setup()
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = trap
    with pytest.raises(UserError, match="env_args"):
        RobomimicDataModule(str(path), "lift", list(OBS_DIMS))
    assert not marker.exists()
