"""A data file's env_args are a stranger's: what robosuite cannot take is said in one message, before any training."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from envs.installed import installed_folder
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import default_env_args
from tests.simulators import controllers
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


def arm_with(**settings: Any) -> dict[str, Any]:
    """Lift's env_args with other settings of the arm's controller."""
    env_args = deepcopy(default_env_args("lift"))
    for controller in controllers(env_args):
        controller |= settings
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
        (changed({"controller_configs": OTHERS}), f"controller is of the type '{OTHERS['type']}', expected one of"),
        (changed({"controller_configs": []}), "have 0 controller_configs for 1 robots"),
        (changed({"controller_configs": "OSC_POSE"}), "controller is 'OSC_POSE', expected its settings"),
        (arm_with(kp=[150, 150]), r"has the kp \[150, 150\], expected a number or six of them"),
        (arm_with(impedance_mode="soft"), "it says AssertionError: .*soft"),
    ],
    ids=[
        "no robots",
        "no env_kwargs",
        "unknown robot",
        "unknown keys",
        "a controller of another version",
        "no controller for a robot",
        "a controller's mere name",
        "two gains for six directions",
        "what only robosuite knows",
    ],
)
def test_what_robosuite_cannot_take_is_named(env_args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"cannot build Lift .*{message}"):
        RobosuiteEnv(env_args)


@pytest.mark.skipif(installed_folder() != "robosuite15", reason="the controllers of 1.4.1 have no parts")
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, r"body_parts\.right is None, expected the settings of the right arm"),
        ({"right": {"type": "OSC_POSE"}}, r'body_parts\.right\.gripper is None, expected \{"type": "GRIP"\}'),
        ({"right": {"type": "OSC_POSE", "gripper": {}}}, r"body_parts\.right\.gripper is of the type None"),
        ({"right": {"type": "GRIP"}}, r"body_parts\.right is of the type 'GRIP', expected one of JOINT_VELOCITY"),
    ],
    ids=["no arm", "no gripper", "a gripper without a type", "an arm's type that is a gripper's"],
)
def test_a_part_that_the_controller_lacks_is_named(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RobosuiteEnv(changed({"controller_configs": {"type": "BASIC", "body_parts": parts}}))


def test_fit_refuses_it_before_training(tmp_path: Path, cli_server: ForkServer) -> None:
    data = write_toy_dataset(tmp_path / "toy.hdf5", env_args=changed({"sneed": 3}))
    status, errors = cli_server.run(fit_line(tmp_path, data, rollout__every_n_epochs=1000, rollout__n_envs=1))
    assert status == 2
    assert "hold sneed, which it does not know" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("*.ckpt"))
