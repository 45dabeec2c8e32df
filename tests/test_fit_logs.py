"""What `fit` leaves in its loggers: learning rate, gradient norm, settings, and what came of them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from callbacks.step_metrics import StepMetrics
from lightning_modules.schedules import lr_factor
from tests.test_training_as_a_library import loader, module, trainer
from tests.training_toy import ForkServer, fit_line, write_toy_dataset

BOARD = "lightning.pytorch.loggers.TensorBoardLogger"


def events_below(folder: Path) -> EventAccumulator:
    (file,) = folder.rglob("events.out.tfevents.*")
    return EventAccumulator(str(file.parent)).Reload()


@pytest.fixture(scope="module")
def run(cli_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of 24 steps, 8 an epoch, that logs every third step."""
    folder = tmp_path_factory.mktemp("logged")
    data = write_toy_dataset(folder / "toy.hdf5")
    board = {"class_path": BOARD, "init_args": {"save_dir": str(folder / "runs"), "default_hp_metric": False}}
    table = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder / "table")}}
    line = fit_line(folder / "run", data, trainer__logger=json.dumps([table, board]), trainer__log_every_n_steps=3)
    status, errors = cli_server.run([*line, "--model.lr=0.01"])
    assert status == 0, errors
    return folder


def test_learning_rate_and_gradient_norm_are_curves(run: Path) -> None:
    board = events_below(run / "runs")
    rates = {point.step: point.value for point in board.Scalars("train/lr")}
    assert list(rates) == [2, 5, 8, 11, 14, 17, 20, 23]
    factor = lr_factor("cosine", 0, 24)
    assert rates == {step: pytest.approx(0.01 * factor(step)) for step in rates}
    norms = [point.value for point in board.Scalars("train/grad_norm")]
    assert len(norms) == len(rates)
    assert all(norm > 0 for norm in norms)
    rows = [json.loads(row) for row in (run / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["train/lr"] for row in rows] == pytest.approx([0.01 * factor(step) for step in (7, 15, 23)])


def test_hparams_has_the_settings_beside_the_outcome(run: Path) -> None:
    board = events_below(run / "runs")
    content = board.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["model.lr"].number_value == pytest.approx(0.01)
    assert settings["data.path"].string_value.endswith("toy.hdf5")
    assert settings["trainer.max_epochs"].number_value == 3
    assert not [name for name in settings if name.startswith(("trainer.logger", "trainer.callbacks"))]
    (loss,) = board.Scalars("hp/train_loss")
    assert loss.value == pytest.approx(board.Scalars("train/loss")[-1].value)
    assert "hp/success_rate" not in board.Tags()["scalars"], "nothing was rolled out"


def test_every_logger_gets_settings_and_metrics(run: Path) -> None:
    (table,) = (run / "table").rglob("metrics.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(row["train/grad_norm"]) for row in rows) == 8
    assert sum(bool(row["train/loss"]) for row in rows) == 3
    assert "data.batch_size: 8" in table.with_name("hparams.yaml").read_text()


def test_config_and_data_settings_stand_in_the_folder_of_the_run(run: Path) -> None:
    config = (run / "run/config.yaml").read_text()
    assert f"path: {run / 'toy.hdf5'}" in config
    assert "obs_keys:" in config


class Norms(Callback):
    """Every gradient as clipping is given it."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        gradients = [each.grad.flatten() for each in pl_module.parameters() if each.grad is not None]
        self.seen.append(float(torch.cat(gradients).norm()))


def test_the_norm_is_the_one_before_clipping(tmp_path: Path) -> None:
    norms, watched = Norms(), StepMetrics()
    run = trainer(norms, watched, max_epochs=1, gradient_clip_val=1e-4)
    run.fit(module(), loader())
    assert float(watched.latest["train/grad_norm"]) == pytest.approx(norms.seen[-1])
    assert norms.seen[-1] > 1e-3
