"""`benchmarks/gpu.sh`: every step runs in small on this machine, and what proves nothing on a GPU does not pass."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu_pack import pack_data, problems
from datamodules.hdf5 import DatasetFile
from envs.tasks import DEFAULT_OBS_KEYS, default_env_args
from policies import DiffusionPolicy, PolicySpec
from policies.schedule import DiffusionConfig
from policies.spec import NetworkConfig
from tests.training_toy import ROOT, ForkServer, write_toy_dataset

SQUARE_DIMS = dict(zip(DEFAULT_OBS_KEYS, (3, 4, 2, 14), strict=True))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """What gpu_pack.sh makes, without wheels and with little data."""
    folder = tmp_path / "pack"
    folder.mkdir()
    source = write_toy_dataset(tmp_path / "square.hdf5", env_args=default_env_args("square"), obs_dims=SQUARE_DIMS)
    pack_data(source, folder / "square_ph.hdf5")
    spec = PolicySpec(
        obs_dims=SQUARE_DIMS,
        action_dim=7,
        pred_horizon=4,
        network=NetworkConfig(init_args={"hidden_dims": [16]}),
        diffusion=DiffusionConfig(num_train_timesteps=10, ddim_steps=2),
        env_args=default_env_args("can"),
        task="can",
    )
    DiffusionPolicy(spec).save(folder / "can.safetensors")
    return folder


def proof(tmp_path: Path, seconds: float = 60.0) -> gpu.Proof:
    made = gpu.Proof(tmp_path, tmp_path / "results", "cpu", False, time.monotonic() + seconds)
    made.scratch.mkdir(parents=True)
    return made


def call_in_forks(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's lines run in forks of a process that has imported what they need."""

    def call(self: gpu.Proof, line: Sequence[object], seconds: float, stops_it: bool = False) -> bool:
        first, *words = map(str, line)
        before = ""
        if first == "-m":
            module, *words = words
            before = f"import runpy, sys; sys.argv[0] = {module!r}; runpy.run_module({module!r}, run_name='__main__')\n"
            before += "raise SystemExit(0)"
        status, errors = server.run(words, before=before)
        assert status == 0, errors
        return True

    monkeypatch.setattr(gpu.Proof, "call", call)


def test_every_step_passes_in_small(
    pack: Path, tmp_path: Path, cli_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_in_forks(cli_server, monkeypatch)
    steps = ["training_speed", "square_policy", "dsrl_speed", "dsrl_can"]  # the suite itself runs those of device_tests
    monkeypatch.setattr(sys, "argv", ["gpu", "--pack", str(pack), "--results", str(tmp_path / "results"), "--toy"])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--minutes", "14", "--steps", *steps])
    assert gpu.main() == 0
    document = json.loads((tmp_path / "results/results.json").read_text())
    assert [step["verdict"] for step in document["steps"].values()] == ["passed"] * 4
    assert {"fit", "bare loop", "bare loop, one graph"} <= set(document["training_speed"]["updates_per_s"])
    assert document["dsrl_can"]["updates"] > 0
    brought_back = list((tmp_path / "results").iterdir())
    assert all(path.is_file() and path.stat().st_size < 16 * 2**20 for path in brought_back)
    assert len(brought_back) <= 7


def test_the_script_runs_a_step_with_the_python_that_it_is_given(pack: Path, tmp_path: Path) -> None:
    line = ["bash", "benchmarks/gpu.sh", str(pack), str(tmp_path / "results"), "--toy", "--steps", "dsrl_speed"]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    log = (tmp_path / "results/log.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log
    document = json.loads((tmp_path / "results/results.json").read_text())
    assert document["steps"]["dsrl_speed"]["verdict"] == "passed"


def test_without_a_gpu_nothing_passes(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--pack", str(pack), "--results", str(tmp_path / "results")])
    assert gpu.main() == 1


@pytest.mark.parametrize(
    ("code", "seconds", "verdict"),
    [
        ("raise SystemExit(3)", 30, "status 3"),
        ("import time; time.sleep(60)", 1, "longer than 1 s"),
        ("pass", 30, "passed"),
    ],
)
def test_a_step_that_fails_or_runs_out_of_time_does_not_pass_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, seconds: float, verdict: str
) -> None:
    made = proof(tmp_path)

    def first(proof: gpu.Proof) -> dict[str, object]:
        proof.call(["-c", code], seconds)
        return {}

    monkeypatch.setattr(gpu, "STEPS", {"first": first, "second": lambda proof: {"figure": 1}})
    assert gpu.run(made, ["first", "second"]) == (verdict == "passed")
    written = json.loads((tmp_path / "results/results.json").read_text())
    assert verdict in written["steps"]["first"]["verdict"]
    assert written["second"] == {"figure": 1}


def test_a_step_without_time_left_counts_as_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", {"late": lambda proof: {}})
    assert not gpu.run(proof(tmp_path, seconds=1.0), ["late"])
    assert "skipped" in json.loads((tmp_path / "results/results.json").read_text())["steps"]["late"]["verdict"]


def test_skipped_device_tests_do_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = '<testsuites><testsuite tests="3" failures="0" errors="0" skipped="1"/></testsuites>'

    def call(self: gpu.Proof, line: list[object], seconds: float) -> bool:
        (self.scratch / "tests.xml").write_text(suite)
        return True

    monkeypatch.setattr(gpu.Proof, "call", call)
    assert not gpu.run(proof(tmp_path), ["device_tests"])


def test_figures_of_the_training_speed() -> None:
    medians = {"fit, steps/s": 1000.0, "fit, compiled, CUDA graphs, steps/s": 2000.0}
    medians |= {"bare loop, steps/s": 1500.0, "bare loop, one graph, steps/s": 2100.0, "kernel seconds per step": 2e-4}
    figures = gpu.speed_figures(medians)
    assert figures["fastest_fit"] == "fit, compiled, CUDA graphs"
    assert figures["seconds_for_117000_updates"]["fit, compiled, CUDA graphs"] == pytest.approx(58.5)
    assert figures["goal_under_60_s"]
    assert figures["goal_90_percent_of_graph"]
    assert figures["bare_loop_is_launch_bound"]  # kernels run for .3 of the bare step


def wheel(folder: Path, name: str, requires: str = "") -> None:
    info = "-".join(name.split("-")[:2]) + ".dist-info/METADATA"
    with zipfile.ZipFile(folder / name, "w") as content:
        content.writestr(info, f"Name: {name.split('-')[0]}\n" + (f"Requires-Dist: {requires}\n" if requires else ""))


def test_a_pack_that_would_not_work_is_refused(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "a-1.0-py3-none-any.whl", "b>=2; python_version >= '3.12'")
    wheel(wheels, "b-2.0-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", "numpy>=1")
    assert problems(tmp_path, "3.12", base={"numpy"}) == []
    assert ["numpy" in each for each in problems(tmp_path, "3.12", base=set())] == [True]
    assert ["not for Python 3.11" in each for each in problems(tmp_path, "3.11", base={"numpy"})] == [True]
    wheel(wheels, "c-1.0-py3-none-any.whl", "b<2")
    assert ["the pack has 2.0" in each for each in problems(tmp_path, "3.12", base={"numpy"})] == [True]
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 49 * 2**20)
    assert "at most 48" in problems(tmp_path, "3.12", base={"numpy"})[-1]


def test_packed_data_is_float32_and_reads_as_before(pack: Path, tmp_path: Path) -> None:
    with h5py.File(pack / "square_ph.hdf5") as file:
        assert file["data/demo_0/actions"].dtype == np.float32
        assert set(file["data/demo_0/obs"]) == set(SQUARE_DIMS)
    with DatasetFile(tmp_path / "square.hdf5") as old, DatasetFile(pack / "square_ph.hdf5") as new:
        assert new.names("train") == old.names("train")
        assert new.env_args == old.env_args
        np.testing.assert_allclose(new.read("demo_1").obs["object"], old.read("demo_1").obs["object"], rtol=1e-6)
