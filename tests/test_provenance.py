"""A run says where its figures come from."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from common.provenance import changed_settings, provenance, write_provenance
from tests.training_toy import ROOT


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no git repository here")
def test_the_commit_is_the_repositorys() -> None:
    commit = provenance()["commit"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert commit is not None
    assert commit.removesuffix("+changes") == head.strip()


def test_command_versions_and_hardware_are_plain_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/cli.py", "dsrl", "--learner.hidden_sizes", "[64, 64]"])
    found = json.loads(json.dumps(provenance()))
    assert found["command"] == "python cli.py dsrl --learner.hidden_sizes '[64, 64]'", "as a shell takes it"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["begun"])
    assert found["versions"]["robosuite"] in ("1.4.1", "1.5.2")
    assert found["hardware"]["cpus"] >= 1


def test_only_what_differs_is_a_changed_setting() -> None:
    default = {"seed": 0, "env": {"horizon": None, "n_envs": 2}, "scales": [1.0], "options": {}}
    given = {"seed": 0, "env": {"horizon": 20, "n_envs": 2}, "scales": [0.5], "options": {"new": True}}
    assert changed_settings(given, default) == {"env.horizon": 20, "scales": [0.5], "options.new": True}


def test_a_resumed_run_keeps_its_starts_and_a_new_one_does_not(tmp_path: Path) -> None:
    for goes_on, expected in ((False, 1), (True, 2), (False, 1)):
        write_provenance(tmp_path, {"seed": 3}, goes_on)
        document = json.loads((tmp_path / "provenance.json").read_text())
        assert len(document["starts"]) == expected
        assert document["changed"] == {"seed": 3}


@pytest.mark.parametrize("damaged", ["{", "[]", '{"starts": null}', "{}", '{"starts": "abc"}', '{"starts": {"a": 1}}'])
def test_a_damaged_record_does_not_keep_a_run_from_going_on(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "provenance.json").write_text(damaged)
    with pytest.warns(UserWarning, match=r"provenance.json cannot be read"):
        write_provenance(tmp_path, {}, goes_on=True)
    assert len(json.loads((tmp_path / "provenance.json").read_text())["starts"]) == 1
