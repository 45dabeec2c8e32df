"""robosuite 1.4.1: building its environments, and which of them the fused step knows.

Importing this module imports robosuite (1-2 s), so only modules that simulate do.
"""

import inspect
import logging
from copy import deepcopy
from typing import Any

from common.errors import UserError
from envs.numba_cache import ensure_numba_cache
from envs.rendering import choose_gl
from envs.tasks import TASKS, Task, check_version, task_of

choose_gl()
ensure_numba_cache()
# On import robosuite's macros.py advises, on stderr, to set up a private macro file: nothing a user of ours can act on.
logging.getLogger("robosuite_logs").addFilter(lambda record: record.filename != "macros.py")

# ruff: noqa: E402 - all of the above must come before these imports
import mujoco
import robosuite
from robosuite.controllers.osc import OperationalSpaceController
from robosuite.environments.base import REGISTERED_ENVS, MujocoEnv
from robosuite.environments.robot_env import RobotEnv
from robosuite.models.grippers.panda_gripper import PandaGripper
from robosuite.robots.single_arm import SingleArm
from robosuite.utils.transform_utils import mat2quat, quat2mat

__all__ = [
    "MujocoEnv",
    "hide_sites",
    "make_env",
    "mat2quat",
    "model_and_data",
    "quat2mat",
    "task_of_env",
    "why_not_fused",
]

# What Robomimic forces on every header for low-dim work: no windows, no cameras, no time limit of robosuite's own.
_HEADLESS = {
    "has_renderer": False,
    "has_offscreen_renderer": False,
    "use_camera_obs": False,
    "use_object_obs": True,
    "ignore_done": True,
}


def make_env(env_args: dict[str, Any]) -> MujocoEnv:
    """Build the robosuite environment that a Robomimic header describes, headless.

    Raises:
        UserError: robosuite 1.4 has no such environment or does not take these arguments, or the header is of robosuite
            1.5.
    """
    if not robosuite.__version__.startswith("1.4."):
        raise UserError(
            f"robosuite {robosuite.__version__} is installed: expected 1.4.1 (pip install robosuite==1.4.1)."
        )
    check_version(env_args)
    name = env_args["env_name"]
    if name not in REGISTERED_ENVS:
        raise UserError(f"env_args name the environment {name!r}: robosuite 1.4.1 has {', '.join(REGISTERED_ENVS)}.")
    # Robomimic's converter repeats the name among the arguments.
    kwargs = {key: value for key, value in env_args.get("env_kwargs", {}).items() if key != "env_name"}
    if fault := _fault_of(name, kwargs):
        raise UserError(
            f"robosuite 1.4.1 cannot build {name} from the data file's env_args: {fault}. Mend the attribute 'env_args'"
            " of its group 'data'; without it, Robomimic's v141 settings of the task that you name are used."
        )
    return robosuite.make(name, **(deepcopy(kwargs) | _HEADLESS))


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
    for controller in controllers if isinstance(controllers, list) else [controllers]:
        kind = controller.get("type") if isinstance(controller, dict) else controller
        if kind is not None and not (isinstance(kind, str) and kind in robosuite.ALL_CONTROLLERS):
            return (
                f"its controller is {kind!r}, expected one of {', '.join(robosuite.ALL_CONTROLLERS)} (robosuite 1.5 has"
                " others)"
            )
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


def why_not_fused(env: MujocoEnv) -> str | None:
    """What keeps ``env`` from the fused control step, in words; None where nothing does."""
    if len(env.robots) != 1 or type(env.robots[0]) is not SingleArm:
        return "it has more than one arm"
    robot = env.robots[0]
    controller = robot.controller
    if type(controller) is not OperationalSpaceController or not controller.use_ori:
        return f"its controller is {controller.name}, not OSC_POSE"
    if controller.impedance_mode != "fixed":
        return f"its controller's impedance_mode is {controller.impedance_mode}, not fixed"
    if controller.interpolator_pos is not None or controller.interpolator_ori is not None:
        return "its controller interpolates"
    if not (controller.use_delta and controller.uncoupling):
        return "its controller takes absolute goals or couples position and orientation"
    if controller.position_limits is not None or controller.orientation_limits is not None:
        return "its controller limits position or orientation"
    if type(robot.gripper) is not PandaGripper:
        return f"its gripper is {type(robot.gripper).__name__}, not PandaGripper"
    model, _ = model_and_data(env)
    if model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4:
        return "its integrator is RK4"
    own = type(env)
    if own._pre_action is not RobotEnv._pre_action or own.step is not MujocoEnv.step:
        return f"{own.__name__} overrides robosuite's step"
    return None
