"""robosuite 1.4.1: what Robomimic's v141 files say about it. Light to import."""

from typing import Any

from envs.header import ObjectLayout, low_dim_env_args, osc_pose, part_fault

SIMULATES = "robosuite 1.4.1"
SETUP = "make setup"
PYTHON = ".venv/bin/python"
FILES = "a low_dim_v141.hdf5 file"
RECORDED_KEYS = (
    "object",
    "robot0_eef_pos",
    "robot0_eef_quat",
    "robot0_eef_vel_ang",
    "robot0_eef_vel_lin",
    "robot0_gripper_qpos",
    "robot0_gripper_qvel",
    "robot0_joint_pos",
    "robot0_joint_pos_cos",
    "robot0_joint_pos_sin",
    "robot0_joint_vel",
)
OBJECT_LAYOUT = ObjectLayout(pose_in_hand_first=False, difference_from_hand=False, relation_lags=False)
_CONTROLLERS = ("JOINT_VELOCITY", "JOINT_TORQUE", "JOINT_POSITION", "OSC_POSITION", "OSC_POSE", "IK_POSE")


def records(env_version: str) -> bool:
    """Files of the versions before it too, whose states it replays."""
    return env_version.startswith("1.") and not env_version.startswith("1.5")


def env_args(env_name: str, robots: int = 1) -> dict[str, Any]:
    """The header of ``low_dim_v141.hdf5``."""
    return low_dim_env_args(env_name, "1.4.1", robots, osc_pose())


def controller_fault(controller: dict[str, Any]) -> str | None:
    return part_fault("its controller", controller, _CONTROLLERS)
