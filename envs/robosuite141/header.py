"""robosuite 1.4.1: what Robomimic's v141 files say about it. Light to import."""

from copy import deepcopy
from typing import Any

from envs.installed import ObjectLayout

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
CONTROLLERS = ("JOINT_VELOCITY", "JOINT_TORQUE", "JOINT_POSITION", "OSC_POSITION", "OSC_POSE", "IK_POSE")

# The controller of Robomimic's v141 files. robosuite 1.4.1 ignores `damping` and `damping_limits` in favour of its own
# `damping_ratio` (1); they are kept because the files have them.
_OSC_POSE: dict[str, Any] = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "control_delta": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}


def records(env_version: str) -> bool:
    """Files of the versions before it too, whose states it replays."""
    return env_version.startswith("1.") and not env_version.startswith("1.5")


def env_args(env_name: str, robots: int = 1) -> dict[str, Any]:
    """The header of ``low_dim_v141.hdf5``."""
    return {
        "env_name": env_name,
        "env_version": "1.4.1",
        "type": 1,
        "env_kwargs": {
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "ignore_done": True,
            "use_object_obs": True,
            "use_camera_obs": False,
            "control_freq": 20,
            "controller_configs": deepcopy(_OSC_POSE),
            "robots": ["Panda"] * robots,
            "camera_depths": False,
            "camera_heights": 84,
            "camera_widths": 84,
            "reward_shaping": False,
        },
    }
