"""robosuite 1.5: what Robomimic's v1.5 files say about it. Light to import."""

from typing import Any

from envs.installed import ObjectLayout

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


def _osc_pose() -> dict[str, Any]:
    """The arm's part of the controller. `damping`, `damping_limits` and `control_delta` have no effect in robosuite 1.5
    and are kept because the files have them."""
    return {
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
        "input_ref_frame": "world",
        "gripper": {"type": "GRIP"},
    }


def records(env_version: str) -> bool:
    return env_version.startswith("1.5")


def env_args(env_name: str, robots: int = 1) -> dict[str, Any]:
    """The header of ``low_dim_v15.hdf5``."""
    return {
        "env_name": env_name,
        "env_version": "1.5.1",
        "type": 1,
        "env_kwargs": {
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "ignore_done": True,
            "use_object_obs": True,
            "use_camera_obs": False,
            "control_freq": 20,
            "controller_configs": {"type": "BASIC", "body_parts": {"right": _osc_pose()}},
            "robots": ["Panda"] * robots,
            "camera_depths": False,
            "camera_heights": 84,
            "camera_widths": 84,
            "reward_shaping": False,
            "lite_physics": False,
        },
    }
