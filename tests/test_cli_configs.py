"""Every training configuration in the repository is one that its commands take, and says what it seems to say."""

from pathlib import Path

import pytest
import yaml

from tests.training_toy import ROOT, ForkServer

TRAINING = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if "trainer" in yaml.safe_load(p.read_text()))


def test_there_are_configurations() -> None:
    assert {"bc_lift.yaml", "bc_can.yaml", "bc_square.yaml", "bc_quickstart.yaml"} <= {path.name for path in TRAINING}


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: str(path.relative_to(ROOT)))
def test_training_configurations_parse(cli_server: ForkServer, path: Path) -> None:
    # fast.yaml and those in debug/ are laid over a task's.
    below = [] if path.stem.startswith("bc_") else ["--config", str(ROOT / "configs/bc_lift.yaml")]
    for command in ("fit", "validate"):
        run = cli_server.start([command, *below, "--config", str(path), "--print_config"])
        assert run.wait() == 0, run.stderr
        resolved = yaml.safe_load(run.output.read_text())
        given = yaml.safe_load(path.read_text())
        for section in ("data", "model", "ema", "rollout", "best", "last", "export"):
            for key, value in given.get(section, {}).items():
                if not isinstance(value, dict):
                    assert resolved[section][key] == value, f"{section}.{key}"


@pytest.mark.parametrize("task", ["lift", "can", "square"])
def test_the_tasks_carry_the_seed_recipe(task: str) -> None:
    config = yaml.safe_load((ROOT / f"configs/bc_{task}.yaml").read_text())
    assert (config["data"]["task"], config["data"]["pred_horizon"], config["data"]["batch_size"]) == (task, 4, 256)
    assert config["model"]["network"]["init_args"] == {"hidden_dims": [1024] * 3, "time_dim": 128}
    assert (config["model"]["lr"], config["model"]["weight_decay"]) == (1e-4, 1e-6)
    assert (config["trainer"]["max_epochs"], config["ema"]["decay"]) == (3000, 0.995)
    assert (config["model"]["diffusion"]["num_train_timesteps"], config["model"]["lr_schedule"]) == (100, "cosine")
