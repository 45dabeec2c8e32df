"""A run of `fit` leaves what a page about it is made of."""

import json
from pathlib import Path

from reports.page import write_run_page
from tests.training_toy import ForkServer, fit_line, write_toy_dataset


def test_a_resumed_run_has_each_epoch_once_and_both_its_starts(cli_server: ForkServer, tmp_path: Path) -> None:
    data, folder = write_toy_dataset(tmp_path / "toy.hdf5"), tmp_path / "run"
    assert cli_server.start(fit_line(folder, data, trainer__max_epochs=3)).wait() == 0
    line = fit_line(folder, data, trainer__max_epochs=5)
    assert cli_server.start([*line, "--resume"]).wait() == 0
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["epoch"] for row in rows if "val/loss" in row] == [1, 3], "where there was a validation, and only there"
    seconds = [row["time/wall_s"] for row in rows]
    assert seconds == sorted(seconds), "the time of the first attempt counts"
    provenance = json.loads((folder / "provenance.json").read_text())
    assert len(provenance["starts"]) == 2
    assert provenance["changed"]["data.batch_size"] == 8
    assert "model.ema_decay" not in provenance["changed"]
    write_run_page([folder], tmp_path / "page.html")
    assert "resumed by" in (tmp_path / "page.html").read_text()
