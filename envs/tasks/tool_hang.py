"""Tool Hang: put a hooked frame into its stand, and hang a tool on it."""

from envs.tasks.task import Observed, Task

TOOL_HANG = Task(
    name="tool_hang",
    env_name="ToolHang",
    horizon=700,
    object_dim=44,
    objects=(
        Observed("stand_base", "geom"),
        Observed("frame_intersection_site", "site"),
        Observed("tool_root", "body_matrix"),
    ),
    state="envs.tool_hang:ToolHangState",
)
