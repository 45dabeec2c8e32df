"""What ``env_args`` say about the controller, without building the environment."""

from typing import Any


def are_absolute(env_args: dict[str, Any] | None) -> bool:
    """Whether actions are target poses, which need no bound, and not motions, which robosuite clips to [-1, 1].

    robosuite 1.4 says so by ``control_delta``, 1.5 by ``input_type`` of the arm's part of the controller.
    """
    controller = _controller(env_args)
    return controller.get("control_delta") is False or controller.get("input_type") == "absolute"


def motion_units(env_args: dict[str, Any] | None) -> list[float] | None:
    """Metres and radians (6,) that a 1 in an action asks of the hand; None where actions ask for something else."""
    controller = _controller(env_args)
    if are_absolute(env_args) or controller.get("type") != "OSC_POSE":
        return None
    return controller.get("output_max")


def _controller(env_args: dict[str, Any] | None) -> dict[str, Any]:
    """The settings of the (first) arm's controller; nothing where the file does not state them."""
    kwargs = (env_args or {}).get("env_kwargs")
    controller = kwargs.get("controller_configs") if isinstance(kwargs, dict) else None
    if isinstance(controller, list) and controller:  # one for each arm
        controller = controller[0]
    if isinstance(controller, dict) and isinstance(parts := controller.get("body_parts"), dict):
        controller = parts.get("right")
    return controller if isinstance(controller, dict) else {}
