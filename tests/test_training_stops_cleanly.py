"""A run that cannot go on says why, and leaves what was saved before as it was."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from datamodules.robomimic_datamodule import RobomimicDataModule
from policies import load_policy
from policies.networks import MLPNoiseNetwork
from tests.training_toy import (
    OBS_DIMS,
    ForkServer,
    assert_same_state,
    fit_line,
    training_state,
    write_toy_dataset,
)

STEPS = 8  # per epoch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5")


# Makes the loss of one step what the test wants; the batch is spoilt on the way in, as bad data or an overflow would.
NAN_AT_STEP = """
import lightning_modules.diffusion_bc as module
original = module.DiffusionBC.training_step
def training_step(self, batch, batch_idx):
    loss = original(self, batch, batch_idx)
    return loss * float({value!r}) if self.trainer.global_step == {step} else loss
module.DiffusionBC.training_step = training_step
"""


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_the_run(cli_server: ForkServer, data: Path, tmp_path: Path, value: str) -> None:
    line = fit_line(tmp_path, data)
    status, errors = cli_server.run(line, before=NAN_AT_STEP.format(value=value, step=2 * STEPS + 3))
    assert status == 2, errors
    assert "Traceback" not in errors
    assert f"the loss is {value} at step {2 * STEPS + 3} (epoch 2, batch 3 of it)" in errors
    assert str(tmp_path / "non_finite.pt") in errors
    last = training_state(tmp_path / "last.ckpt")
    assert int(last["global_step"]) == 2 * STEPS
    state = torch.load(tmp_path / "non_finite.pt", weights_only=True)
    assert (state["step"], state["epoch"], state["batch_idx"]) == (2 * STEPS + 3, 2, 3)
    assert not torch.isfinite(state["loss"])
    assert [tuple(part.shape) for part in state["batch"]] == [(8, 8), (8, 4, 7)]
    weights = {name: tensor for name, tensor in state["state_dict"].items() if name.startswith("policy.")}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()), "weights from before the damage"
    assert any(not torch.equal(tensor, last[name]) for name, tensor in weights.items()), "and of that step"


def test_the_saved_batch_is_the_one_that_was_trained_on(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    spy = (
        NAN_AT_STEP.format(value="nan", step=STEPS + 2)
        + f"""
def spying(self, batch, batch_idx):
    if self.trainer.global_step == {STEPS + 2}:
        import torch
        torch.save(list(batch), {str(tmp_path / "seen.pt")!r})
    return training_step(self, batch, batch_idx)
module.DiffusionBC.training_step = spying
"""
    )
    status, _ = cli_server.run(fit_line(tmp_path, data), before=spy)
    assert status == 2
    saved = torch.load(tmp_path / "non_finite.pt", weights_only=True)["batch"]
    seen = torch.load(tmp_path / "seen.pt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(saved, seen, strict=True))


def test_losses_read_in_strides_still_name_the_step(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    # As on a GPU: the losses are looked at once per stride, after the damage is done, but never after a checkpoint.
    strided = (
        "import callbacks.non_finite as n\nimport torch\n"
        + """
def on_before_backward(self, trainer, module, loss):
    step = n.Step(trainer.global_step, trainer.current_epoch, trainer.fit_loop.batch_idx, self._batch)
    self._seen.append((loss.detach(), step))
n.StopOnNonFinite.on_before_backward = on_before_backward
"""
    )
    line = fit_line(tmp_path, data)
    status, errors = cli_server.run(line, before=strided + NAN_AT_STEP.format(value="nan", step=STEPS + 3))
    assert status == 2
    assert f"at step {STEPS + 3} (epoch 1, batch 3 of it)" in errors
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == STEPS


def test_weights_that_are_no_numbers_are_never_saved(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    # The last step of the second epoch spoils the weights though its loss was fine.
    spoil = f"""
import lightning_modules.diffusion_bc as module
def on_train_batch_end(self, outputs, batch, batch_idx):
    if self.trainer.global_step == {2 * STEPS}:
        next(self.policy.parameters()).data.fill_(float("nan"))
module.DiffusionBC.on_train_batch_end = on_train_batch_end
"""
    status, errors = cli_server.run(fit_line(tmp_path, data), before=spoil)
    assert status == 2
    assert "weights are not finite" in errors
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == STEPS


def test_a_full_disk_ends_with_a_clear_error_and_an_intact_checkpoint(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    status, errors = cli_server.run(fit_line(tmp_path, data, trainer__max_epochs=1))
    assert status == 0, errors
    before = (tmp_path / "last.ckpt").read_bytes()
    # No file of this process may grow beyond half a checkpoint: writes then fail as they do on a full disk.
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)"
    line = fit_line(tmp_path, data, ckpt_path="last")
    status, errors = cli_server.run(line, before=limit)
    assert status == 2, errors
    assert "Traceback" not in errors
    assert f"cannot write {tmp_path / 'last.ckpt'}: File too large" in errors
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert not list(tmp_path.glob(".*.partial"))
    status, errors = cli_server.run(line)
    assert status == 0, errors
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == 3 * STEPS


def test_the_data_file_may_be_gone_when_a_checkpoint_is_exported(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "d.hdf5"
    copy.write_bytes(data.read_bytes())
    status, errors = cli_server.run(fit_line(tmp_path, copy, trainer__max_epochs=1))
    assert status == 0, errors
    copy.unlink()
    checkpoint, output = tmp_path / "last.ckpt", tmp_path / "again.safetensors"
    status, errors = cli_server.run(["export", "--checkpoint", str(checkpoint), "--output", str(output)])
    assert status == 0, errors
    assert output.read_bytes() == (tmp_path / "policy.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        status, errors = cli_server.run(fit_line(tmp_path / name, data, trainer__max_epochs=1, seed_everything=seed))
        assert status == 0, errors
    assert_same_state(tmp_path / "a/last.ckpt", tmp_path / "b/last.ckpt")
    with pytest.raises(AssertionError, match="differ"):
        assert_same_state(tmp_path / "a/last.ckpt", tmp_path / "c/last.ckpt")


def test_training_learns(cli_server: ForkServer, tmp_path: Path) -> None:
    # Actions are a function of the observation: with training, unseen episodes' noise is predicted better.
    data = write_toy_dataset(tmp_path / "d.hdf5", lengths=(60,) * 9)
    module = RobomimicDataModule(str(data), "lift", list(OBS_DIMS))
    module.setup()
    losses = []
    for epochs in (1, 40):
        folder = tmp_path / str(epochs)
        flags = {"trainer__max_epochs": epochs, "data__batch_size": 32, "last__every_n_epochs": epochs}
        status, errors = cli_server.run(fit_line(folder, data, model__network__init_args__hidden_dims="[64]", **flags))
        assert status == 0, errors
        policy = load_policy(folder / "last.ckpt")
        assert policy.spec.weights == "ema"
        assert policy.spec.train_step == epochs * 15
        chunks = module.val_chunks
        losses.append(policy.loss(chunks.obs, chunks.actions, torch.Generator().manual_seed(0)).item())
    assert losses[1] < 0.75 * losses[0]


def test_several_files_in_one_run(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    second = write_toy_dataset(tmp_path / "second.hdf5", seed=50)
    line = fit_line(tmp_path, data, data__path=f"[{data},{second}]", trainer__max_epochs=1)
    status, errors = cli_server.run(line)
    assert status == 0, errors
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == 16  # 126 windows in batches of 8
    with h5py.File(second, "r+") as file:
        file["data"].attrs["env_args"] = '{"env_name": "Door", "type": 1, "env_kwargs": {}}'
    line = fit_line(tmp_path / "other", data, data__path=f"[{data},{second}]", trainer__max_epochs=1)
    status, errors = cli_server.run(line)
    assert status == 2
    assert "expected files of one task" in errors


def test_a_run_saves_its_last_epoch_and_can_be_extended(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    constant = {"model__lr_schedule": "constant", "last__every_n_epochs": 2}
    first = fit_line(tmp_path, data, trainer__max_epochs=3, **constant)
    status, errors = cli_server.run(first)
    assert status == 0, errors
    assert int(training_state(tmp_path / "last.ckpt")["global_step"]) == 3 * STEPS
    # Gone on with from there, it is the run that was never ended.
    for line in (
        fit_line(tmp_path, data, trainer__max_epochs=5, ckpt_path="last", **constant),
        fit_line(tmp_path / "whole", data, trainer__max_epochs=5, **constant),
    ):
        status, errors = cli_server.run(line)
        assert status == 0, errors
        assert "another length" not in errors
    assert_same_state(tmp_path / "last.ckpt", tmp_path / "whole/last.ckpt")
    # Its settings leave to each line what is of that line alone.
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert not {"ckpt_path", "overwrite"} & set(settings)
    line = ["predict", f"--checkpoint={tmp_path / 'last.ckpt'}", f"--config={tmp_path / 'config.yaml'}"]
    status, errors = cli_server.run([*line, f"--predictions.output={tmp_path / 'chunks.npz'}"])
    assert status == 0, errors


def test_a_schedule_that_starts_anew_is_told(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    status, errors = cli_server.run(fit_line(tmp_path, data, trainer__max_epochs=2))
    assert (status, "another length" in errors) == (0, False), errors
    status, errors = cli_server.run(fit_line(tmp_path, data, trainer__max_epochs=4, ckpt_path="last"))
    assert status == 0, errors
    assert "at step 16 it goes from 0 to 0.0005. To end the run as planned give trainer.max_epochs" in errors


def test_a_run_that_is_at_its_end_says_that_nothing_was_trained(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    for name, limits, told in (
        ("epochs", {"trainer__max_epochs": 1}, "trainer.max_epochs 1."),
        ("steps", {"trainer__max_steps": 3}, "trainer.max_steps 3."),
        ("time", {"trainer__max_epochs": 10_000, "trainer__max_time": "00:00:00:01"}, "trainer.max_time, in which"),
    ):
        line = fit_line(tmp_path / name, data, ckpt_path="last", **limits)
        status, errors = cli_server.run(line)
        assert (status, "nothing was trained" in errors) == (0, False), errors
        before = training_state(tmp_path / name / "last.ckpt")
        status, errors = cli_server.run(line)
        assert status == 0, errors
        assert f"nothing was trained: at step {before['global_step']} this run has come to the end" in errors
        assert told in errors


def test_predict_writes_chunks_for_the_held_out_demonstrations(
    cli_server: ForkServer, data: Path, tmp_path: Path
) -> None:
    line = fit_line(tmp_path, data, trainer__max_epochs=1)
    assert cli_server.run(line)[0] == 0
    output = tmp_path / "chunks.npz"
    status, errors = cli_server.run(["predict", *line[1:], "--ckpt_path", "last", "--predictions.output", str(output)])
    assert status == 0, errors
    found = np.load(output)
    module = RobomimicDataModule(str(data), "lift", list(OBS_DIMS))
    module.setup()
    assert np.array_equal(found["obs"], module.val_chunks.obs)
    assert np.array_equal(found["demonstrated"], module.val_chunks.actions)
    assert found["predicted"].shape == found["demonstrated"].shape
    assert np.abs(found["predicted"]).max() <= 1
    status, errors = cli_server.run(["predict", *line[1:], "--ckpt_path", "last"])
    assert status == 2
    assert "give --predictions.output FILE.npz" in errors


def test_running_statistics_reach_the_exported_policy(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    line = fit_line(tmp_path, data, model__network=f"{__name__}.BatchNormNetwork")
    line = [word for word in line if "init_args" not in word]
    status, errors = cli_server.run(line)
    assert status == 0, errors
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        raw, average = (state[f"{policy}.network.norm.{name}"] for policy in ("policy", "ema_policy"))
        assert torch.equal(raw, average)
    assert int(state["ema_policy.network.norm.num_batches_tracked"]) == 3 * STEPS


def test_validation_demonstrations_that_are_trained_on_are_told(data: Path) -> None:
    module = RobomimicDataModule(str(data), "lift", list(OBS_DIMS), train_filter_key=None)
    with pytest.warns(UserWarning, match="1 demonstrations are in both"):
        module.setup()


class BatchNormNetwork(MLPNoiseNetwork):
    """A network with running statistics."""

    def __init__(self, obs_dim: int, action_dim: int, pred_horizon: int, num_train_timesteps: int) -> None:
        super().__init__(obs_dim, action_dim, pred_horizon, num_train_timesteps, [16], 8)
        self.norm = torch.nn.BatchNorm1d(obs_dim)

    def forward(self, noisy_actions: torch.Tensor, timestep: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        return super().forward(noisy_actions, timestep, self.norm(obs))


def test_overfitting_uses_the_same_batches_in_each_epoch(cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    spy = """
import lightning_modules.diffusion_bc as module
original = module.DiffusionBC.training_step
def training_step(self, batch, batch_idx):
    print("BATCH", batch_idx, float(batch[0].sum()))
    return original(self, batch, batch_idx)
module.DiffusionBC.training_step = training_step
"""
    run = cli_server.start(fit_line(tmp_path, data, trainer__overfit_batches=2), before=spy)
    assert run.wait() == 0, run.stderr
    batches = [line for line in run.output.read_text().splitlines() if line.startswith("BATCH")]
    assert len(batches) == 6
    assert len(set(batches)) == 2
