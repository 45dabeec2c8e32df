"""A data file's env_args are a stranger's: what robosuite cannot take is said in one message, before any training."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from envs.installed import installed_folder
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import default_env_args
from tests.training_toy import ForkServer, fit_line, write_toy_dataset

CONTROLLERS: dict[str, dict[str, Any]] = {
    "robosuite141": {"type": "OSC_POSE", "kp": 150},
    "robosuite15": {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE"}}},
}
OTHERS = next(controller for folder, controller in CONTROLLERS.items() if folder != installed_folder())


def changed(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Lift's env_args with other env_kwargs; None: left out."""
    env_args = deepcopy(default_env_args("lift"))
    merged = env_args["env_kwargs"] | kwargs
    env_args["env_kwargs"] = {key: value for key, value in merged.items() if value is not None}
    return env_args


def test_the_name_repeated_among_the_arguments_is_no_matter() -> None:
    RobosuiteEnv(changed({"env_name": "Lift"})).close()


@pytest.mark.parametrize(
    ("env_args", "message"),
    [
        (changed({"robots": None}), "name the robots None"),
        ({"env_name": "Lift", "type": 1}, "name the robots None"),
        (changed({"robots": ["Panda", "R2D2"]}), r"name the robots \['Panda', 'R2D2'\]"),
        (changed({"heavy_physics": False, "sneed": 3}), "hold heavy_physics, sneed, which it does not know"),
        (changed({"controller_configs": OTHERS}), f"controller is '{OTHERS['type']}'"),
    ],
    ids=["no robots", "no env_kwargs", "unknown robot", "unknown keys", "a controller of another version"],
)
def test_what_robosuite_cannot_take_is_named(env_args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"cannot build Lift .*{message}"):
        RobosuiteEnv(env_args)


def test_fit_refuses_it_before_training(tmp_path: Path, cli_server: ForkServer) -> None:
    data = write_toy_dataset(tmp_path / "toy.hdf5", env_args=changed({"sneed": 3}))
    status, errors = cli_server.run(fit_line(tmp_path, data, rollout__every_n_epochs=1000, rollout__n_envs=1))
    assert status == 2
    assert "hold sneed, which it does not know" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("*.ckpt"))
