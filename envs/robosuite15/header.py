"""robosuite 1.5: what Robomimic's v1.5 files say about it. Light to import."""

from typing import Any

from envs.header import ObjectLayout, low_dim_env_args, osc_pose

SIMULATES = "robosuite 1.5.2"
SETUP = "make setup ROBOSUITE=1.5"
PYTHON = ".venv15/bin/python"
FILES = "a low_dim_v15.hdf5 file"
RECORDED_KEYS = (
    "object",
    "robot0_eef_pos",
    "robot0_eef_quat",
    "robot0_eef_quat_site",
    "robot0_gripper_qpos",
    "robot0_gripper_qvel",
    "robot0_joint_acc",
    "robot0_joint_pos",
    "robot0_joint_pos_cos",
    "robot0_joint_pos_sin",
    "robot0_joint_vel",
)
OBJECT_LAYOUT = ObjectLayout(pose_in_hand_first=True, difference_from_hand=True, relation_lags=True)
CONTROLLERS = ("BASIC", "HYBRID_MOBILE_BASE", "WHOLE_BODY_COMPOSITE", "WHOLE_BODY_IK")


def records(env_version: str) -> bool:
    return env_version.startswith("1.5")


def env_args(env_name: str, robots: int = 1) -> dict[str, Any]:
    """The header of ``low_dim_v15.hdf5``."""
    arm = osc_pose() | {"input_ref_frame": "world", "gripper": {"type": "GRIP"}}
    controller = {"type": "BASIC", "body_parts": {"right": arm}}
    return low_dim_env_args(env_name, "1.5.1", robots, controller, lite_physics=False)
