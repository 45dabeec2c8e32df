"""Can: carry a can from one bin into its compartment of the other."""

from typing import Any

from envs.tasks.task import Goal, Observed, Task


def _goal(env: Any) -> Goal:
    """Each object in the quarter of the second bin that belongs to it (``not_in_bin``), up to 10 cm above its floor."""
    x, y, z = env.bin2_pos
    half_x, half_y = env.bin_size[0] / 2, env.bin_size[1] / 2
    lows = [[x - half_x * (i in (0, 2)), y - half_y * (i < 2), z] for i in range(len(env.objects))]
    highs = [[low[0] + half_x, low[1] + half_y, z + 0.1] for low in lows]
    return Goal([thing.root_body for thing in env.objects], lows, highs, reach=0.6)


CAN = Task(
    name="can",
    env_name="PickPlaceCan",
    horizon=400,
    object_dim=14,
    objects=(Observed("Can_main"),),
    object_in_hand="pose",
    goal=_goal,
    yaw_period=0.0,
    expert="experts.can:CanExpert",
)
