"""The shipped policies are the files that their figures speak of beside them."""

import re
import shlex
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml

from benchmarks.verify_pretrained import FIGURES, FOLDER, judged_file, row_of, rows
from common.files import sha256_of
from dsrl.agent import load_steered_agent
from policies import load_policy
from rollouts.loop import Episode
from tests.run_folders import write_results
from tests.training_toy import ROOT, ForkServer

LARGEST = 3_000_000  # bytes


def test_the_figures_are_of_the_files_that_are_there() -> None:
    assert rows()
    for row in rows():
        path = judged_file(row)
        assert sha256_of(path) == row["sha256"], path
        assert path.stat().st_size < LARGEST
        assert load_policy(FOLDER / row["policy"] / "policy.safetensors").spec.task == row["policy"]
    shipped = {path for path in FOLDER.glob("*/*") if path.suffix in (".safetensors", ".zip")}
    named = {judged_file(row) for row in rows()} | {FOLDER / row["policy"] / "policy.safetensors" for row in rows()}
    assert shipped == named


def test_figures_state_an_interval_that_holds_the_rate() -> None:
    assert Path(FIGURES).is_file()
    for row in rows():
        assert float(row["low"]) <= float(row["success"]) <= float(row["high"])


def test_the_lines_that_made_them_would_make_their_like(cli_server: ForkServer) -> None:
    """In network, chunk, diffusion and rotations."""
    lines = re.findall(r"^python cli\.py (fit .*?[^\\])$", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    made = set()
    for line in lines:
        words = shlex.split(line.replace("\\\n", " "))
        fit = cli_server.start([*(word.replace("configs/", f"{ROOT}/configs/") for word in words), "--print_config"])
        assert fit.wait() == 0, fit.stderr
        model, data = (yaml.safe_load(fit.output.read_text())[part] for part in ("model", "data"))
        made.add(data["task"])
        spec = load_policy(FOLDER / data["task"] / "policy.safetensors").spec
        assert model["network"] == asdict(spec.network)
        assert model["diffusion"] == asdict(spec.diffusion)
        assert (model["rotations"], data["pred_horizon"]) == ("6d" if spec.quaternions else None, spec.pred_horizon)
    assert made == {"square", "lift"}, "Can's is in docs/results.md"


def test_a_steered_actor_fits_the_policy_beside_it() -> None:
    for row in rows():
        if row["agent"] == "steered":
            policy = load_policy(FOLDER / row["policy"] / "policy.safetensors")
            episode = Episode(0, 0, np.random.default_rng(0))
            obs = np.zeros((1, policy.spec.obs_dim), np.float32)
            chunk = load_steered_agent(judged_file(row), policy).act(obs, [episode])
            assert chunk.shape == (1, *policy.chunk_shape)


def test_the_row_of_a_results_file_has_the_columns_of_the_figures(tmp_path: Path) -> None:
    row = row_of(write_results(tmp_path / "results.json"))
    assert list(row) == FIGURES.read_text().splitlines()[0].split(",")
    assert (row["policy"], row["agent"], row["success"], row["sha256"]) == ("lift", "steered", "0.900", "cd" * 32)
