"""Tool Hang: whether the frame is in its stand and the tool on the frame, with robosuite's Python only near success."""

import math
from typing import Any

import numpy as np
from numba import njit


@njit(cache=True)
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True)
def _opposite(a: np.ndarray, b: np.ndarray, line: np.ndarray) -> bool:
    """Whether ``a`` and ``b`` (3,) lie on opposite sides of a line through the origin."""
    return _dot(np.cross(a, line), np.cross(b, line)) < 0.0


@njit(cache=True)
def is_assembled(geoms: np.ndarray, sites: np.ndarray, base: int, walls: np.ndarray, ids: np.ndarray) -> bool:
    """``_check_frame_assembled``: the stand upright, the frame's end in it, between its walls.

    Args:
        geoms, sites: positions (n, 3) m.
        base: the stand's geom.
        walls: (4,) geoms around its hole.
        ids: (4,) sites: the stand's mount, the frame's tip, mount and corner.
    """
    stand = sites[ids[0]] - geoms[base]
    if abs(math.acos(stand[2] / math.sqrt(_dot(stand, stand)))) >= math.pi / 18.0:
        return False
    tip = sites[ids[1]] - geoms[base]
    if math.sqrt(_dot(tip, tip)) >= 0.05:
        return False
    end = sites[ids[2]]
    hook = sites[ids[3]] - end
    return _opposite(geoms[walls[0]] - end, geoms[walls[2]] - end, hook) and _opposite(
        geoms[walls[1]] - end, geoms[walls[3]] - end, hook
    )


@njit(cache=True)
def may_hang(geoms: np.ndarray, sites: np.ndarray, rim: np.ndarray, ids: np.ndarray, reach: float) -> bool:
    """The conditions of ``_check_tool_on_frame`` that are geometry: all but the contacts.

    Args:
        geoms, sites: positions (n, 3) m.
        rim: (2,) opposite geoms of the tool's hole.
        ids: (3,) sites: the hook's end, the frame's corner, the hole's centre.
        reach: how far the hole's centre may be from the hook, m.
    """
    end = sites[ids[0]]
    hook = sites[ids[1]] - end
    length = math.sqrt(_dot(hook, hook))
    hook = hook / length
    hole = sites[ids[2]] - end
    along = _dot(hole, hook)
    off = hole - along * hook
    return (
        math.sqrt(_dot(off, off)) < reach
        and 0.05 < along / length < 1.0
        and _opposite(geoms[rim[0]] - end, geoms[rim[1]] - end, hook)
    )


class ToolHangState:
    """How far the task is, in the present, forwarded state of one environment as it is built."""

    def __init__(self, env: Any) -> None:
        data = env.sim.data._data
        sites, geoms = env.obj_site_id, env.obj_geom_id
        self._env = env
        self._geoms, self._sites = data.geom_xpos, data.site_xpos
        self._base = geoms["stand_base"]
        self._walls = np.array([geoms[f"stand_wall_{i}"] for i in range(4)])
        tip = sites.get("frame_tip_site", sites["frame_mount_site"])
        self._frame = np.array(
            [sites["stand_mount_site"], tip, sites["frame_mount_site"], sites["frame_intersection_site"]]
        )
        opposite = env.tool_args["ngeoms"] // 2
        self._rim = np.array([geoms["tool_hole1_hc_0"], geoms[f"tool_hole1_hc_{opposite}"]])
        self._hook = np.array([sites["frame_hang_site"], sites["frame_intersection_site"], sites["tool_hole1_center"]])
        self._reach = env.tool_args["inner_radius_1"] - env.frame_args["frame_thickness"] / 2.0

    def assembled(self) -> bool:
        return bool(is_assembled(self._geoms, self._sites, self._base, self._walls, self._frame))

    def hung(self) -> bool:
        near = may_hang(self._geoms, self._sites, self._rim, self._hook, self._reach)
        return bool(near and self._env._check_tool_on_frame())

    def check(self) -> bool:
        """``_check_success``."""
        return self.assembled() and self.hung()

    def flags(self) -> tuple[float, float]:
        """What ``object`` ends with."""
        return float(self.assembled()), float(self.hung())
