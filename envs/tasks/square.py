"""Square: thread a square nut onto the square peg."""

import math
from typing import Any

from envs.tasks.task import Goal, Observed, Task


def _goal(env: Any) -> Goal:
    """Each nut within 3 cm of its peg's axis (``on_peg``), less than 5 cm above the table."""
    pegs = [env.sim.data.body_xpos[peg] for peg in (env.peg1_body_id, env.peg2_body_id)]
    lows = [[x - 0.03, y - 0.03, -math.inf] for x, y, _ in pegs]
    highs = [[x + 0.03, y + 0.03, env.table_offset[2] + 0.05] for x, y, _ in pegs]
    return Goal([nut.root_body for nut in env.nuts], lows, highs, reach=0.6)


SQUARE = Task(
    name="square",
    env_name="NutAssemblySquare",
    horizon=400,
    object_dim=14,
    objects=(Observed("SquareNut_main"),),
    object_in_hand="pose",
    goal=_goal,
    yaw_period=2 * math.pi,
    expert="experts.square:SquareExpert",
)
