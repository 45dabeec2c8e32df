"""Lift: raise a cube of random size off the table."""

import math
from typing import Any

from envs.tasks.task import Goal, Observed, RandomBox, Task

CUBE = "cube_main"


def _goal(env: Any) -> Goal:
    """4 cm off the table, wherever the hand is."""
    low = [-math.inf, -math.inf, env.model.mujoco_arena.table_offset[2] + 0.04]
    return Goal([CUBE], [low], [[math.inf] * 3], reach=2.0)


LIFT = Task(
    name="lift",
    env_name="Lift",
    horizon=400,
    object_dim=10,
    objects=(Observed(CUBE),),
    object_in_hand="difference",
    goal=_goal,
    random_box=RandomBox("cube", CUBE, "cube_g0", size_min=0.020, size_max=0.022, density=1000.0),
    yaw_period=math.pi / 2,
    expert="experts.lift:LiftExpert",
)
