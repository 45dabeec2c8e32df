"""A run's folder holds one run: no other replaces it, mixes with it or works beside it unasked."""

from pathlib import Path

import pytest

from tests.training_toy import ForkServer, assert_same_state, fit_line, training_state, wait_for, write_toy_dataset

STEPS = 8  # per epoch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5")


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of the checkpoints and the policy in ``folder``."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".ckpt", ".safetensors")}


@pytest.fixture
def run(cli_server: ForkServer, data: Path, tmp_path: Path) -> Path:
    """Folder of a finished run, with one of its best checkpoints."""
    folder = tmp_path / "run"
    status, errors = cli_server.run(fit_line(folder, data, trainer__max_epochs=1))
    assert status == 0, errors
    (folder / "epoch0000-success0.500.ckpt").write_bytes((folder / "last.ckpt").read_bytes())
    return folder


def test_a_finished_run_is_not_replaced_unasked(cli_server: ForkServer, data: Path, tmp_path: Path, run: Path) -> None:
    before = contents(run)
    status, errors = cli_server.run(fit_line(run, data))
    assert status == 2
    assert errors == (
        f"error: {run} holds a run already (last.ckpt): go on with it by --resume, name another --output, "
        "or begin anew there by --overwrite\n"
    )
    # Nor is it by a run that goes on with a checkpoint of another folder.
    elsewhere = tmp_path / "elsewhere.ckpt"
    elsewhere.write_bytes(before["last.ckpt"])
    status, errors = cli_server.run(fit_line(run, data, ckpt_path=elsewhere))
    assert (status, "holds a run already" in errors) == (2, True)
    assert contents(run) == before


def test_one_that_is_asked_for_leaves_nothing_of_the_former(cli_server: ForkServer, data: Path, run: Path) -> None:
    status, errors = cli_server.run([*fit_line(run, data, trainer__max_epochs=2), "--overwrite"])
    assert status == 0, errors
    assert sorted(contents(run)) == ["last.ckpt", "policy.safetensors"]
    assert int(training_state(run / "last.ckpt")["global_step"]) == 2 * STEPS
    assert "overwrite" not in (run / "config.yaml").read_text(), "the run made again from it asks again"


def test_one_that_is_refused_leaves_the_former(cli_server: ForkServer, data: Path, run: Path) -> None:
    before = contents(run)
    for flags, message in (
        ({"data__obs_keys": '["absent"]'}, "absent"),
        ({"ckpt_path": "last"}, "--overwrite begins anew"),
        ({"ckpt_path": run / "last.ckpt"}, "--overwrite begins anew"),
    ):
        status, errors = cli_server.run([*fit_line(run, data, **flags), "--overwrite"])
        assert (status, message in errors) == (2, True), errors
    assert contents(run) == before


def test_a_run_that_was_killed_before_its_first_last_ckpt_goes_on(
    cli_server: ForkServer, data: Path, tmp_path: Path, run: Path
) -> None:
    (run / "last.ckpt").unlink()
    status, errors = cli_server.run(fit_line(run, data, trainer__max_epochs=2, ckpt_path="last"))
    assert status == 0, errors
    status, errors = cli_server.run(fit_line(tmp_path / "whole", data, trainer__max_epochs=2, ckpt_path="last"))
    assert status == 0, errors
    assert f"there is no {tmp_path / 'whole/last.ckpt'} yet" in errors


def test_a_second_run_beside_a_living_one_is_refused(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    # It waits in its second epoch, with a checkpoint half written.
    (tmp_path / "run").mkdir()
    partial, go_on = tmp_path / "run/.last.ckpt.1.partial", tmp_path / "go_on"
    waiting = f"""
import pathlib, time
import lightning_modules.diffusion_bc as module
original = module.DiffusionBC.training_step
def training_step(self, batch, batch_idx):
    if self.trainer.global_step == {STEPS}:
        pathlib.Path({str(partial)!r}).touch()
        while not pathlib.Path({str(go_on)!r}).exists():
            time.sleep(0.01)
    return original(self, batch, batch_idx)
module.DiffusionBC.training_step = training_step
"""
    line = fit_line(tmp_path / "run", data, trainer__max_epochs=2, ckpt_path="last")
    first = cli_server.start(line, before=waiting)
    wait_for(partial)
    for second in (line, [*fit_line(tmp_path / "run", data), "--overwrite"]):
        status, errors = cli_server.run(second)
        assert status == 75, "a script can tell it from a mistake"
        assert f"{tmp_path / 'run'} is in use by another run (process {first.pid} on " in errors
        assert partial.exists()
        assert (tmp_path / "run/last.ckpt").exists()
    go_on.touch()
    assert first.wait() == 0, first.stderr
    whole = tmp_path / "whole"
    assert cli_server.run(fit_line(whole, data, trainer__max_epochs=2))[0] == 0
    assert_same_state(tmp_path / "run/last.ckpt", whole / "last.ckpt")
    assert cli_server.run(line)[0] == 0, "the folder is free again"
