"""A run of `fit` leaves a page about it, and what that is made of."""

import json
import re
from pathlib import Path

from tests.training_toy import ForkServer, fit_line, write_toy_dataset


def test_a_resumed_run_has_each_epoch_once_and_both_its_starts(cli_server: ForkServer, tmp_path: Path) -> None:
    data, folder = write_toy_dataset(tmp_path / "toy.hdf5"), tmp_path / "run"
    here, relative = f"import os; os.chdir({str(tmp_path)!r})", Path("run")  # as the shipped configs name it
    assert cli_server.run(fit_line(relative, data, trainer__max_epochs=3), before=here)[0] == 0
    assert not (folder / "report.html").exists(), "it was not asked for"
    logger = "lightning.pytorch.loggers.CSVLogger"
    line = fit_line(relative, data, trainer__max_epochs=5, ema__decay=0.9, report="true", trainer__logger=logger)
    line.append("--trainer.logger.save_dir=logs")
    line = [*(word for word in line if "progress_bar" not in word), "--resume"]
    settings = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(settings.replace("report: false\n", ""))  # as of a version that had none
    resumed = cli_server.start(line, before=f"{here}; os.dup2(1, 2)")  # the bar amid the lines, as on a terminal
    assert resumed.wait() == 0
    said = resumed.output.read_text()
    assert re.search(
        rf"^fit: {re.escape(str(data))}, \d+ windows of 4 actions; at most to step \d+; in run$", said, re.M
    )
    assert "--resume goes on with other settings: " in said
    assert "ema.decay 0.9 (so far 0.999)" in said
    assert "trainer.logger CSVLogger (so far False)" in said
    assert "report True" not in said
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["epoch"] for row in rows if "val/loss" in row] == [1, 3], "where there was a validation, and only there"
    seconds = [row["time/wall_s"] for row in rows]
    assert seconds == sorted(seconds), "the time of the first attempt counts"
    provenance = json.loads((folder / "provenance.json").read_text())
    assert len(provenance["starts"]) == 2
    assert provenance["changed"]["data.batch_size"] == 8
    assert "model.ema_decay" not in provenance["changed"]
    page = folder / "report.html"
    assert page.as_uri() in said
    for text in ("resumed by", "Gradient norm", "Learning rate"):
        assert text in page.read_text()


def test_a_trial_and_a_run_that_is_stopped_leave_no_page(cli_server: ForkServer, tmp_path: Path) -> None:
    data, folder = write_toy_dataset(tmp_path / "toy.hdf5"), tmp_path / "run"
    folder.mkdir()
    trial = fit_line(folder, data, report="true", trainer__fast_dev_run="true")
    assert cli_server.run(trial)[0] == 0
    stop = (
        "import os, lightning_modules.diffusion_bc as m\n"
        "m.DiffusionBC.on_train_batch_start = "
        "lambda self, batch, i: os.kill(os.getpid(), 2) if self.trainer.global_step == 12 else None"
    )
    assert cli_server.run(fit_line(folder, data, report="true"), before=stop)[0] == 130
    assert (folder / "last.ckpt").exists()
    assert not (folder / "report.html").exists()
