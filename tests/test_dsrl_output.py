"""What a DSRL run logs, in the formats of stable-baselines3's logger."""

import json
from pathlib import Path

import pytest

from cli import COMMANDS
from commands.front_door import run
from dsrl.output import Metrics, Row, Terminal

ROWS: list[Row] = [{"env_steps": 100 * i, "eval/stochastic_success": 0.1 * i, "train/q_pi": -3.0} for i in (1, 2, 3)]


def log(folder: Path, rows: list[Row], formats: list[str], before: list[Row] | None = None) -> None:
    metrics = Metrics(folder, Terminal(300), before or [], formats)  # type: ignore[arg-type]
    for row in rows:
        metrics.add(row)
    metrics.close()


def test_further_formats_hold_the_rows_of_the_table(tmp_path: Path) -> None:
    log(tmp_path, ROWS[:2], ["json", "log"])
    log(tmp_path, ROWS[2:], ["json", "log"], before=ROWS[:2])  # as --resume does
    lines = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    assert [line["env_steps"] for line in lines] == [100, 200, 300]
    assert [line["eval/stochastic_success"] for line in lines] == pytest.approx([0.1, 0.2, 0.3])
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 4
    assert (tmp_path / "log.txt").read_text().count("stochastic_success") == 3
    assert not (tmp_path / "tensorboard").exists(), "it was not asked for"


def test_its_table_is_printed_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, ROWS[:1], ["stdout"])
    assert "|    stochastic_success" in capsys.readouterr().out


def test_a_format_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(COMMANDS, ["dsrl", "--bc_checkpoint", "p.safetensors", "--log_formats", "[xml]"]) == 2
    errors = capsys.readouterr().err
    assert "log_formats" in errors
    assert "json" in errors
