"""What is the same in every version of robosuite. Importing this module imports robosuite (1-2 s), prepared for it."""

import inspect
import logging
import os
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

from common.errors import UserError
from common.user_modules import import_named
from envs.installed import check_version, header
from envs.numba_cache import ensure_numba_cache
from envs.rendering import choose_gl
from envs.tasks import TASKS, Task, task_of

choose_gl()
ensure_numba_cache()
# On import robosuite advises, on stderr, to set up a private macro file and to install packages of other robots:
# nothing a user of ours can act on.
logging.getLogger("robosuite_logs").addFilter(lambda record: record.filename not in ("macros.py", "__init__.py"))

# ruff: noqa: E402 - all of the above must come before these imports
import mujoco
import numpy as np
import robosuite
from robosuite.environments.base import REGISTERED_ENVS, MujocoEnv
from robosuite.environments.robot_env import RobotEnv
from robosuite.utils.transform_utils import mat2quat, quat2mat

from envs.mujoco_shim import give_back

give_back()

__all__ = [
    "ArmAddresses",
    "MujocoEnv",
    "Stepping",
    "hide_sites",
    "make_env",
    "mat2quat",
    "model_and_data",
    "quat2mat",
    "task_of_env",
    "why_osc_not_fused",
]

MODULES = "DIFFUSION_STEERING_ENVS"  # environment variable: modules of the user's own environments, with commas between

# What Robomimic forces on every header for low-dim work: no windows, no cameras, no time limit of robosuite's own.
_HEADLESS = {
    "has_renderer": False,
    "has_offscreen_renderer": False,
    "use_camera_obs": False,
    "use_object_obs": True,
    "ignore_done": True,
}


@dataclass(frozen=True)
class ArmAddresses:
    """Where the one arm of an environment is in the MuJoCo model, and robosuite's own objects for it."""

    controller: Any
    gripper: Any
    site: int  # the grip site
    hand: int  # the hand's body
    qpos: list[int]  # of the joints, from base to hand
    dof: list[int]
    actuators: list[int]
    torque_min: np.ndarray  # N m
    torque_max: np.ndarray
    gripper_qpos: list[int]
    gripper_dof: list[int]
    gripper_actuators: list[int]


class Stepping(Protocol):
    """Simulates control steps of one environment."""

    def begin(self) -> None:
        """Start an episode at the environment's present, forwarded state, after robosuite's own reset."""

    def step(self, action: np.ndarray) -> None:
        """Simulate one control step with ``action`` (action_dim,) float64; leaves the state forwarded."""


def make_env(env_args: dict[str, Any]) -> MujocoEnv:
    """Build the robosuite environment that a Robomimic header describes, headless.

    Raises:
        UserError: this robosuite has no such environment or does not take these arguments, or the header is of another
            version.
    """
    check_version(env_args)
    _import_environments()
    name = env_args["env_name"]
    if name not in REGISTERED_ENVS:
        known = ", ".join(REGISTERED_ENVS)
        raise UserError(
            f"env_args name the environment {name!r}: {header().SIMULATES} has {known}. One of your own: name its "
            f"module in the variable {MODULES} (docs/extending.md, Add an environment)."
        )
    # Robomimic's converter repeats the name among the arguments.
    kwargs = {key: value for key, value in env_args.get("env_kwargs", {}).items() if key != "env_name"}
    if fault := _fault_of(name, kwargs):
        raise _cannot_build(name, fault)
    try:
        return robosuite.make(name, **(deepcopy(kwargs) | _HEADLESS))
    except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
        # Of a setting too rare to be asked for above; its own settings are not at fault.
        if kwargs == header().env_args(name, len(kwargs["robots"]))["env_kwargs"]:
            raise
        raise _cannot_build(name, f"it says {type(error).__name__}: {error}") from error


def _import_environments() -> None:
    """Import the modules of the user's own environments: that registers them with robosuite.

    An environment variable, because worker processes build environments too, and a data file, which names the
    environment, may not choose what is imported.
    """
    for module in filter(None, os.environ.get(MODULES, "").split(",")):
        import_named(module, MODULES)


def _cannot_build(name: str, fault: str) -> UserError:
    return UserError(
        f"{header().SIMULATES} cannot build {name} from the data file's env_args: {fault}. Mend the attribute "
        f"'env_args' of its group 'data'; without it, the settings of {header().FILES} for the task that you name "
        "are used."
    )


def _fault_of(name: str, kwargs: dict[str, Any]) -> str | None:
    """What ``env_kwargs`` hold that robosuite does not take, or lack that it needs; None where nothing."""
    parameters = {
        parameter
        for parent in REGISTERED_ENVS[name].__mro__
        for parameter in inspect.signature(parent.__init__).parameters
    }
    if unknown := sorted(set(kwargs) - parameters):
        return f"env_kwargs hold {', '.join(unknown)}, which it does not know"
    robots = kwargs.get("robots")
    names = robots if isinstance(robots, list) else [robots]
    if not names or not all(isinstance(robot, str) and robot in robosuite.ALL_ROBOTS for robot in names):
        return f"env_kwargs name the robots {robots!r}, expected a list of {', '.join(robosuite.ALL_ROBOTS)}"
    controllers = kwargs.get("controller_configs")
    if isinstance(controllers, list) and len(controllers) < len(names):
        return f"env_kwargs have {len(controllers)} controller_configs for {len(names)} robots"
    for controller in controllers if isinstance(controllers, list) else [controllers]:
        if controller is not None and not isinstance(controller, dict):
            return f"its controller is {controller!r}, expected its settings"
        if controller is not None and (fault := header().controller_fault(controller)):
            return fault
    return None


def task_of_env(env: MujocoEnv) -> Task | None:
    """The record of the task that ``env`` simulates; None for an environment outside ``TASKS``."""
    name = task_of({"env_name": type(env).__name__})
    return None if name is None else TASKS[name]


def hide_sites(env: MujocoEnv) -> None:
    """Make the markers of grip and grasp points invisible, as robosuite's own reset does."""
    env.visualize(vis_settings=dict.fromkeys(env._visualizations, False))


def model_and_data(env: MujocoEnv) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The MuJoCo objects beneath robosuite's wrappers."""
    return env.sim.model._model, env.sim.data._data


def why_osc_not_fused(env: MujocoEnv, controller: Any) -> str | None:
    """What keeps an environment and its OSC controller from the fused control step whatever the version, in words."""
    if controller.impedance_mode != "fixed":
        return f"its controller's impedance_mode is {controller.impedance_mode}, not fixed"
    if controller.interpolator_pos is not None or controller.interpolator_ori is not None:
        return "its controller interpolates"
    if not controller.uncoupling:
        return "its controller couples position and orientation"
    if controller.position_limits is not None or controller.orientation_limits is not None:
        return "its controller limits position or orientation"
    model, _ = model_and_data(env)
    if model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4:
        return "its integrator is RK4"
    own = type(env)
    if own._pre_action is not RobotEnv._pre_action or own.step is not MujocoEnv.step:
        return f"{own.__name__} overrides robosuite's step"
    return None
