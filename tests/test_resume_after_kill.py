"""A run that is killed, stopped or preempted goes on as if nothing had happened, bit for bit."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.training_toy import ForkServer, assert_same_state, training_state, wait_for, write_toy_dataset
from tests.training_toy import fit_line as quiet_line

fit_line = partial(quiet_line, trainer__enable_progress_bar="true")  # as it is where nobody turns it off
KILLS = int(os.environ.get("KILLS", "5"))  # KILLS=50 python -m pytest tests/test_resume_after_kill.py -k arbitrary
EPOCHS = max(12, 3 * KILLS)
STEPS = 8  # per epoch: 63 windows in batches of 8
# In the process under test: die while checkpoint number {at} is being written.
DIE_BEFORE_RENAME = """
import common.files, os, signal
common.files.os = type("os", (), {**vars(os)})
saves = [0]
def replace(source, target):
    saves[0] += str(target).endswith("last.ckpt")
    if saves[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    os.rename(source, target)
common.files.os.replace = replace
"""
DIE_HALF_WRITTEN = """
import callbacks.checkpoint_io, io, os, signal, torch
class DyingTorch:
    saves = 0
    def save(content, file):
        DyingTorch.saves += 1
        buffer = io.BytesIO()
        torch.save(content, buffer)
        half = buffer.getvalue() if DyingTorch.saves < 3 else buffer.getvalue()[: len(buffer.getvalue()) // 2]
        file.write(half)
        file.flush()
        if DyingTorch.saves == 3:
            os.kill(os.getpid(), signal.SIGKILL)
callbacks.checkpoint_io.torch = DyingTorch
"""


def signal_at(counter: str, value: int, signum: signal.Signals, times: int = 1) -> str:
    """Code by which a run sends itself a signal, ``times`` over, once ``trainer.counter`` is at ``value``."""
    return f"""
import os
import lightning_modules.diffusion_bc as module
original = module.DiffusionBC.training_step
def training_step(self, batch, batch_idx):
    if self.trainer.{counter} == {value}:
        for _ in range({times}):
            os.kill(os.getpid(), {int(signum)})
    return original(self, batch, batch_idx)
module.DiffusionBC.training_step = training_step
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5")


@pytest.fixture(scope="module")
def uninterrupted(cli_server: ForkServer, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of ``EPOCHS`` that nobody disturbed, with a checkpoint every 5 steps as well."""
    folder = tmp_path_factory.mktemp("whole")
    every_5_steps = [
        "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
        f"--trainer.callbacks.dirpath={folder}",
        "--trainer.callbacks.filename={step}",
        "--trainer.callbacks.every_n_train_steps=5",
        "--trainer.callbacks.save_top_k=-1",
    ]
    status, errors = cli_server.run([*fit_line(folder, data, trainer__max_epochs=EPOCHS), *every_5_steps])
    assert status == 0, errors
    assert int(training_state(folder / "last.ckpt")["global_step"]) == EPOCHS * STEPS
    return folder


def test_killed_at_arbitrary_moments(cli_server: ForkServer, data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    line = fit_line(tmp_path, data, trainer__max_epochs=EPOCHS, ckpt_path="last")
    seen: list[int] = []
    for _ in range(KILLS):
        before = (tmp_path / "last.ckpt").stat().st_mtime_ns if seen else 0
        run = cli_server.start(line)
        while not (tmp_path / "last.ckpt").exists() or (tmp_path / "last.ckpt").stat().st_mtime_ns == before:
            time.sleep(0.002)  # it trains: from here on any moment will do, also within a write
        time.sleep(rng.uniform(0, 0.1))
        run.kill(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL, "the run ended before it could be killed: make it longer"
        seen.append(int(training_state(tmp_path / "last.ckpt")["global_step"]))
    assert seen == sorted(set(seen)), "each attempt got further than the one before"
    status, errors = cli_server.run(line)
    assert status == 0, errors
    assert_same_state(tmp_path / "last.ckpt", uninterrupted / "last.ckpt")


@pytest.mark.parametrize("death", [DIE_BEFORE_RENAME, DIE_HALF_WRITTEN], ids=["before_rename", "half_written"])
def test_killed_while_a_checkpoint_is_written(
    cli_server: ForkServer, data: Path, uninterrupted: Path, tmp_path: Path, death: str
) -> None:
    line = fit_line(tmp_path, data, trainer__max_epochs=EPOCHS, ckpt_path="last")
    status, _ = cli_server.run(line, before=death)
    assert status == -signal.SIGKILL
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == 2 * STEPS, "the one before is intact"
    assert list(tmp_path.glob(".last.ckpt.*.partial"))
    status, errors = cli_server.run(line)
    assert status == 0, errors
    assert_same_state(tmp_path / "last.ckpt", uninterrupted / "last.ckpt")
    assert not list(tmp_path.glob(".*.partial")), "what the killed run left is cleared"


@pytest.mark.parametrize("step", [5, 40, 45])
def test_a_checkpoint_from_within_an_epoch(
    cli_server: ForkServer, data: Path, uninterrupted: Path, tmp_path: Path, step: int
) -> None:
    checkpoint = uninterrupted / f"step={step}.ckpt"
    status, errors = cli_server.run(fit_line(tmp_path, data, trainer__max_epochs=EPOCHS, ckpt_path=checkpoint))
    assert status == 0, errors
    assert_same_state(tmp_path / "last.ckpt", uninterrupted / "last.ckpt")


# What max_time does at the end of a step; here of that at which trainer.global_step is {step}.
STOP_AT_STEP = """
import lightning_modules.diffusion_bc as module
def on_train_batch_start(self, batch, batch_idx):
    self.trainer.should_stop |= self.trainer.global_step == {step}
module.DiffusionBC.on_train_batch_start = on_train_batch_start
"""


@pytest.mark.parametrize(("step", "saved"), [(29, 30), (39, 40)], ids=["within_an_epoch", "at_an_epochs_end"])
def test_stopped_for_want_of_time(
    cli_server: ForkServer, data: Path, uninterrupted: Path, tmp_path: Path, step: int, saved: int
) -> None:
    line = fit_line(tmp_path, data, trainer__max_epochs=EPOCHS, ckpt_path="last", last__every_n_epochs=EPOCHS)
    status, errors = cli_server.run(line, before=STOP_AT_STEP.format(step=step))
    assert status == 0, errors
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == saved
    status, errors = cli_server.run(line)
    assert status == 0, errors
    assert_same_state(tmp_path / "last.ckpt", uninterrupted / "last.ckpt")


def test_stopped_by_a_number_of_steps(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    constant = {"model__lr_schedule": "constant", "ckpt_path": "last"}
    for folder, limits in (
        ("broken", {"trainer__max_steps": 3}),
        ("broken", {"trainer__max_steps": 20}),
        ("broken", {}),
        ("whole", {}),
    ):
        status, errors = cli_server.run(
            fit_line(tmp_path / folder, data, **{"trainer__max_epochs": 4, **constant, **limits})
        )
        assert status == 0, errors
    assert int(training_state(tmp_path / "broken/last.ckpt")["global_step"]) == 4 * STEPS
    assert_same_state(tmp_path / "broken/last.ckpt", tmp_path / "whole/last.ckpt")


def test_a_checkpoint_of_anyones_from_an_epoch_that_was_broken_off(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    constant = {"model__lr_schedule": "constant", "trainer__max_epochs": 4}
    ones_own = [
        "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
        f"--trainer.callbacks.dirpath={tmp_path}",
        "--trainer.callbacks.filename=own",
        "--trainer.callbacks.save_on_train_epoch_end=true",
    ]
    for line in (
        [*fit_line(tmp_path / "a", data, trainer__max_steps=11, **constant), *ones_own],
        fit_line(tmp_path / "b", data, ckpt_path=tmp_path / "own.ckpt", **constant),
        fit_line(tmp_path / "whole", data, **constant),
    ):
        status, errors = cli_server.run(line)
        assert status == 0, errors
    assert_same_state(tmp_path / "b/last.ckpt", tmp_path / "whole/last.ckpt")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits(
    cli_server: ForkServer, data: Path, uninterrupted: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    line = fit_line(tmp_path, data, trainer__max_epochs=EPOCHS, ckpt_path="last", last__every_n_epochs=EPOCHS)
    # In the middle of step 29, the fourth epoch's fifth.
    status, errors = cli_server.run(line, before=signal_at("global_step", 29, signum))
    assert status == 128 + signum
    assert f"{signum.name}: saved step 30" in errors
    assert "Traceback" not in errors
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == 30
    status, errors = cli_server.run(line)
    assert status == 0, errors
    assert_same_state(tmp_path / "last.ckpt", uninterrupted / "last.ckpt")


def test_a_second_ctrl_c_ends_at_once_as_an_interruption(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    line = fit_line(tmp_path, data)
    status, errors = cli_server.run(line, before=signal_at("global_step", 5, signal.SIGINT, times=2))
    assert status == 130, errors
    assert "SIGINT: will save and stop at the end of this step" in errors
    assert errors.endswith("fit: interrupted\n")
    assert "Traceback" not in errors
    assert not (tmp_path / "last.ckpt").exists()


def test_a_signal_passed_on_by_a_launcher_is_one_request(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    def run_and_signal_twice(folder: Path, signum: signal.Signals) -> tuple[int, str]:
        return cli_server.run(fit_line(folder, data), before=signal_at("global_step", 5, signum, times=2))

    status, errors = run_and_signal_twice(tmp_path / "passed_on", signal.SIGTERM)
    assert (status, "saved step 6 in" in errors) == (128 + signal.SIGTERM, True)
    status, errors = run_and_signal_twice(tmp_path / "impatient", signal.SIGINT)  # Ctrl-C twice: at once
    assert status != 0
    assert "saved step" not in errors


@pytest.mark.parametrize(("batch", "saved"), [(0, 1), (12, 5)])
def test_a_signal_amid_accumulation_waits_for_the_optimiser(
    cli_server: ForkServer, data: Path, tmp_path: Path, batch: int, saved: int
) -> None:
    accumulating = {"trainer__max_epochs": 4, "trainer__accumulate_grad_batches": 3, "ckpt_path": "last"}
    whole, broken = (fit_line(tmp_path / name, data, **accumulating) for name in ("whole", "broken"))
    status, errors = cli_server.run(whole)
    assert status == 0, errors
    # Steps of an epoch's 8 batches end after the third, the sixth and the last.
    status, errors = cli_server.run(broken, before=signal_at("fit_loop.total_batch_idx", batch, signal.SIGTERM))
    assert f"saved step {saved} in" in errors
    status, errors = cli_server.run(broken)
    assert status == 0, errors
    assert_same_state(tmp_path / "broken/last.ckpt", tmp_path / "whole/last.ckpt")


def test_a_stop_amid_accumulation_waits_for_the_optimiser(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    accumulating = {"trainer__max_epochs": 4, "trainer__accumulate_grad_batches": 3, "ckpt_path": "last"}
    whole, broken = (fit_line(tmp_path / name, data, **accumulating) for name in ("whole", "broken"))
    status, errors = cli_server.run(whole)
    assert status == 0, errors
    # At the first of the three batches of step 4.
    status, errors = cli_server.run(broken, before=STOP_AT_STEP.format(step=4))
    assert status == 0, errors
    assert int(training_state(tmp_path / "broken/last.ckpt")["global_step"]) == 5
    status, errors = cli_server.run(broken)
    assert status == 0, errors
    assert_same_state(tmp_path / "broken/last.ckpt", tmp_path / "whole/last.ckpt")


def test_a_signal_at_the_last_step_of_an_epoch_lets_it_be_validated(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    def noting(folder: Path) -> str:
        """Code with which a run notes the step of each validation in ``folder``."""
        return f"""
import lightning_modules.diffusion_bc as module
def on_validation_epoch_end(self):
    print(self.trainer.global_step, file=open({str(folder / "validated")!r}, "a"))
module.DiffusionBC.on_validation_epoch_end = on_validation_epoch_end
"""

    a, b = tmp_path / "a", tmp_path / "b"
    whole, broken = (fit_line(folder, data, ckpt_path="last", trainer__max_epochs=6) for folder in (a, b))
    for folder in (a, b):
        folder.mkdir()
    status, errors = cli_server.run(whole, before=noting(a))
    assert status == 0, errors
    # The fourth epoch's last step; every second epoch is validated.
    at_step = signal_at("global_step", 4 * STEPS - 1, signal.SIGTERM)
    status, errors = cli_server.run(broken, before=noting(b) + at_step)
    assert (status, f"saved step {4 * STEPS} in" in errors) == (128 + signal.SIGTERM, True)
    status, errors = cli_server.run(broken, before=noting(b))
    assert status == 0, errors
    steps = [str(epochs * STEPS) for epochs in (2, 4, 6)]
    assert (a / "validated").read_text().split() == (b / "validated").read_text().split() == steps
    assert_same_state(a / "last.ckpt", b / "last.ckpt")


def test_slurm_preemption_saves_and_requeues(
    cli_server: ForkServer, data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    slurm = {
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "1",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "fit",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
    }
    line = fit_line(tmp_path, data, trainer__max_epochs=EPOCHS, ckpt_path="last")
    run = cli_server.start(line, slurm, before=f"os.environ['PATH'] = '{tmp_path}:' + os.environ['PATH']")
    wait_for(tmp_path / "last.ckpt")
    run.kill(signal.SIGUSR1)
    assert run.wait() == 128 + signal.SIGUSR1, run.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    status, errors = cli_server.run(line, slurm)
    assert status == 0, errors
    assert_same_state(tmp_path / "last.ckpt", uninterrupted / "last.ckpt")


def test_last_without_a_checkpoint_starts_from_the_beginning(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    status, errors = cli_server.run(fit_line(tmp_path, data, trainer__max_epochs=1, ckpt_path="last"))
    assert status == 0, errors
    assert f"there is no {tmp_path / 'last.ckpt'} yet" in errors
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == STEPS
