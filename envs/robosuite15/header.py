"""robosuite 1.5: what Robomimic's v1.5 files say about it. Light to import."""

from typing import Any

from envs.header import ObjectLayout, low_dim_env_args, osc_pose, part_fault

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
_COMPOSITES = ("BASIC", "HYBRID_MOBILE_BASE", "WHOLE_BODY_COMPOSITE", "WHOLE_BODY_IK")
_OF_ARMS = ("JOINT_VELOCITY", "JOINT_TORQUE", "JOINT_POSITION", "OSC_POSITION", "OSC_POSE", "IK_POSE")
_OF_GRIPPERS = ("GRIP", "JOINT_POSITION")


def records(env_version: str) -> bool:
    return env_version.startswith("1.5")


def env_args(env_name: str, robots: int = 1) -> dict[str, Any]:
    """The header of ``low_dim_v15.hdf5``."""
    arm = osc_pose() | {"input_ref_frame": "world", "gripper": {"type": "GRIP"}}
    controller = {"type": "BASIC", "body_parts": {"right": arm}}
    return low_dim_env_args(env_name, "1.5.1", robots, controller, lite_physics=False)


def controller_fault(controller: dict[str, Any]) -> str | None:
    if "type" in controller and (fault := part_fault("its controller", controller, _COMPOSITES)):
        return fault
    parts = controller.get("body_parts")
    # The left arm's where the robot has one; every robot has a right one.
    sides = [side for side in ("right", "left") if side == "right" or (isinstance(parts, dict) and side in parts)]
    for side in sides:
        where = f"its controller's body_parts.{side}"
        arm = parts.get(side) if isinstance(parts, dict) else None
        if not isinstance(arm, dict):
            return f"{where} is {arm!r}, expected the settings of the {side} arm"
        if fault := part_fault(where, arm, _OF_ARMS):
            return fault
        gripper = arm.get("gripper")
        if not isinstance(gripper, dict):
            return f'{where}.gripper is {gripper!r}, expected {{"type": "GRIP"}}'
        if fault := part_fault(f"{where}.gripper", gripper, _OF_GRIPPERS):
            return fault
    return None
