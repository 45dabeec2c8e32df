"""Commands import what they use: Lightning only where something is trained."""

import subprocess
import sys
from pathlib import Path

from policies import DiffusionPolicy, NetworkConfig, PolicySpec
from tests.training_toy import ROOT

FRONT_DOOR = "import cli; from commands.front_door import run; "
HEAVY = ("lightning", "stable_baselines3", "torch", "robosuite")


def imported_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh process has loaded after running ``code``."""
    report = f"\nimport sys; print('\\nHEAVY', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + report], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("HEAVY")[-1].split())


def test_the_overview_imports_nothing_heavy() -> None:
    assert imported_by(FRONT_DOOR + "assert run(cli.COMMANDS, ['--help']) == 0") == set()


def test_workers_import_neither_torch_nor_sb3() -> None:
    assert imported_by("import envs.worker") & {"torch", "lightning", "stable_baselines3"} == set()


def test_inspect_and_collect_need_no_training_packages(tmp_path: Path) -> None:
    run = FRONT_DOOR + "status = run(cli.COMMANDS, {words}); assert status == 0, status\n"
    data = str(tmp_path / "d.hdf5")
    collect = ["collect", "--task", "lift", "--n_demos", "1", "--n_envs", "1", "--output", data]
    loaded = imported_by(run.format(words=collect) + run.format(words=["inspect", "--dataset", data]))
    assert loaded & {"lightning", "stable_baselines3"} == set()


def test_evaluate_record_and_dsrl_do_not_import_lightning(tmp_path: Path) -> None:
    dims = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}
    spec = PolicySpec(dims, 7, 4, NetworkConfig(init_args={"hidden_dims": [8], "time_dim": 4}), task="lift")
    DiffusionPolicy(spec).save(tmp_path / "p.safetensors")
    words = ["evaluate", "--checkpoint", str(tmp_path / "p.safetensors"), "--n_episodes", "1", "--horizon", "4"]
    evaluate = f"{FRONT_DOOR}assert run(cli.COMMANDS, {[*words, '--n_envs', '1']}) == 0\n"
    evaluate += "import sys; assert 'stable_baselines3' not in sys.modules\n"
    others = "import commands.record, commands.dsrl, commands.export, commands.plot"
    assert "lightning" not in imported_by(evaluate + others)
