"""Every training configuration is one that its commands take, and says only what is particular to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training_toy import ROOT, ForkServer

ALL_KEYS = ROOT / "configs/all_keys.yaml"
RUNS = sorted((ROOT / "configs").glob("bc_*.yaml"))
OVERLAYS = [
    ROOT / "configs/fast.yaml",
    ROOT / "configs/human.yaml",
    ROOT / "configs/human_few.yaml",
    *(ROOT / "configs/debug" / f"{n}.yaml" for n in ("fast_dev_run", "overfit", "profile")),
]


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys that hold a value, with dots."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def resolve(cli_server: ForkServer, command: str, *paths: Path) -> dict[str, Any]:
    """What a command would run with."""
    run = cli_server.start([command, *(f"--config={path}" for path in paths), "--print_config"])
    assert run.wait() == 0, run.stderr
    found: dict[str, Any] = yaml.safe_load(run.output.read_text())
    return found


def test_there_are_configurations() -> None:
    assert {"bc_lift", "bc_can", "bc_square", "bc_quickstart", "bc_quickstart_weak"} <= {path.stem for path in RUNS}


@pytest.mark.parametrize("path", [*RUNS, *OVERLAYS], ids=lambda path: path.stem)
def test_training_configurations_parse(cli_server: ForkServer, path: Path) -> None:
    below = [ROOT / "configs/bc_lift.yaml"] if path in OVERLAYS else []
    for command in ("fit", "validate"):
        resolved = dict(leaves(resolve(cli_server, command, *below, path)))
        for key, value in leaves(load(path)):
            assert resolved[key] == value, key


def test_few_human_demonstrations_over_many_over_fast(cli_server: ForkServer) -> None:
    """As the pages print it: each overlay replaces the network of the one below, and none of its options stays."""
    stack = ("bc_lift", "fast", "human", "human_few")
    run = resolve(cli_server, "fit", *(ROOT / f"configs/{name}.yaml" for name in stack))
    assert run["model"]["network"] == {
        "class_path": "policies.networks.ResidualEnsemble",
        "init_args": {"members": 8, "width": 256, "inner": 256, "blocks": 2, "dropout": 0.1, "time_dim": 128},
    }
    assert (run["model"]["rotations"], run["model"]["diffusion"]["prediction"]) == ("6d", "sample")
    assert run["model"]["diffusion"]["noise_scale"] == 1
    assert run["data"]["batch_size"] == 2048
    assert (run["trainer"]["max_epochs"], run["trainer"]["max_steps"]) == (-1, 5120)


def test_one_file_shows_every_key_with_its_default(cli_server: ForkServer) -> None:
    assert load(ALL_KEYS) == resolve(cli_server, "fit")


def test_it_gives_the_meaning_of_every_key_of_ours() -> None:
    ours = ALL_KEYS.read_text().split("\ntrainer:")[0].splitlines()
    keys = [line for line in ours if ": " in line and not line.startswith("#")]
    assert len(keys) > 30
    assert [line for line in keys if "  # " not in line] == []


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_no_configuration_repeats_a_default(path: Path) -> None:
    defaults = dict(leaves(load(ALL_KEYS)))
    repeated = {key for key, value in leaves(load(path)) if defaults[key] == value}
    assert repeated <= {"model.network.class_path"}, "without it jsonargparse takes no init_args"


@pytest.mark.parametrize("task", ["lift", "can", "square", "tool_hang", "transport"])
def test_the_tasks_carry_the_seed_recipe(cli_server: ForkServer, task: str) -> None:
    config = resolve(cli_server, "fit", ROOT / f"configs/bc_{task}.yaml")
    assert (config["data"]["task"], config["data"]["pred_horizon"], config["data"]["batch_size"]) == (task, 4, 256)
    assert config["model"]["network"]["init_args"] == {"hidden_dims": [1024] * 3, "time_dim": 128}
    assert (config["model"]["lr"], config["model"]["weight_decay"]) == (1e-4, 1e-6)
    assert (config["trainer"]["max_epochs"], config["ema"]["decay"]) == (3000, 0.995)
    assert (config["model"]["diffusion"]["num_train_timesteps"], config["model"]["lr_schedule"]) == (100, "cosine")
    logger = config["trainer"]["logger"]["init_args"]
    assert (logger["save_dir"], logger["name"], config["best"]["dirpath"]) == (
        "runs",
        f"bc_{task}",
        f"checkpoints/bc/{task}",
    )
