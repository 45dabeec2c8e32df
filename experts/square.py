"""Scripted expert for Square (NutAssemblySquare): take the nut by its handle and thread it onto the square peg."""

from itertools import product

import numpy as np

from experts.expert import CLOSE, OPENED_WIDTH, Expert, Scene, Target, wrap_angle

PEG = np.array([0.23, 0.10])
HANDLE = (
    0.062  # from the nut's centre to the grasp on its handle, along its x axis: the open fingers clear the ring there
)
GRASPED_WIDTH = 0.036  # fingers closer than this hold the handle, 32 mm wide
MISSED_WIDTH = 0.022
CARRY_HEIGHT = 1.01  # of the nut's centre: the peg ends at 0.95, and half the nut's thickness is 0.01
HOVER_HEIGHT = 0.975  # just over the peg
ANGLE_WEIGHT = 0.03  # metres of misplacement that one radian of twist counts for
RESTING_HEIGHT = 0.83  # of the nut's centre on the table
YAW_LIMIT = 2.0  # the wrist's reach to either side, radians
# Orientations in which the nut fits: its handle towards the arm first, to the sides only where that saves turning,
# never away from the arm, where the hand would have to reach too far.
FITTING_YAWS = {np.pi: 0.0, np.pi / 2: 0.3, -np.pi / 2: 0.3}


class SquareExpert(Expert):
    """reach -> close -> carry -> thread; a miss or a lost nut leads back to reach."""

    task = "square"
    pace = 0.85
    clearance = 0.03
    _nut_on_peg: float  # the nut's yaw to thread it with
    _grasp_turn: float  # from the nut's yaw to the hand's at the grasp: 0 or pi

    def reach(self, scene: Scene) -> Target:
        self._choose_yaws(scene)
        goal, yaw = self._grasp(scene)
        there = np.linalg.norm(goal - scene.hand) < 0.012 and abs(wrap_angle(yaw - scene.hand_yaw)) < 0.15
        if there and scene.width > OPENED_WIDTH:
            self.hesitate()
            return self.enter(self.close, scene)
        return self.approach(scene, goal, yaw)

    def close(self, scene: Scene) -> Target:
        if scene.width < GRASPED_WIDTH:
            return self.enter(self.carry, scene)
        goal, yaw = self._grasp(scene)
        return Target(goal, yaw, CLOSE)

    def carry(self, scene: Scene) -> Target:
        if self._lost(scene):
            return self.enter(self.reach, scene)
        off, turn = self._misfit(scene)
        misfit = float(np.linalg.norm(off)) + ANGLE_WEIGHT * abs(turn)
        if misfit < 0.007 and scene.object[2] < HOVER_HEIGHT + 0.01:
            return self.enter(self.thread, scene)
        height = HOVER_HEIGHT + np.clip(0.8 * (misfit - 0.010), 0.0, CARRY_HEIGHT - HOVER_HEIGHT)
        free = np.clip((scene.object[2] - RESTING_HEIGHT) / 0.10, 0.0, 1.0)  # rise first, then sideways
        move = np.append(free * off, height - scene.object[2])
        return Target(scene.hand + move, scene.hand_yaw + turn, CLOSE)

    def thread(self, scene: Scene) -> Target:
        if self._lost(scene):
            return self.enter(self.reach, scene)
        off, turn = self._misfit(scene)
        if scene.object[2] > 0.96 and np.linalg.norm(off) > 0.010:
            return self.enter(self.carry, scene)
        return Target(scene.hand + np.append(off, -0.10), scene.hand_yaw + turn, CLOSE, haste=0.8)

    def _lost(self, scene: Scene) -> bool:
        handle = scene.object[:2] + HANDLE * np.array([np.cos(scene.object_yaw), np.sin(scene.object_yaw)])
        return scene.width < MISSED_WIDTH or float(np.linalg.norm(handle - scene.hand[:2])) > 0.04

    def _grasp(self, scene: Scene) -> tuple[np.ndarray, float]:
        """Position and yaw of the hand on the handle."""
        along = np.array([np.cos(scene.object_yaw), np.sin(scene.object_yaw), 0.0])
        goal = np.append(scene.object[:2], RESTING_HEIGHT) + HANDLE * along + self.manner.grasp_offset
        return goal, scene.object_yaw + self._grasp_turn + self.manner.yaw_offset

    def _misfit(self, scene: Scene) -> tuple[np.ndarray, float]:
        """What the nut, not the hand, still has to move (2,) and turn to sit over the peg."""
        turn = wrap_angle(self._nut_on_peg - scene.object_yaw)
        if abs(scene.hand_yaw + turn) > YAW_LIMIT + 0.3:
            turn -= np.sign(turn) * 2 * np.pi
        return PEG - scene.object[:2], turn

    def _choose_yaws(self, scene: Scene) -> None:
        """Choose together how to grasp the nut and how to turn it onto the peg: the least turning the wrist allows."""

        def cost(option: tuple[float, float]) -> float:
            grasp_turn, nut_on_peg = option
            grasp_yaw = wrap_angle(scene.object_yaw + grasp_turn)
            final_yaw = wrap_angle(nut_on_peg + grasp_turn)
            beyond = max(abs(grasp_yaw), abs(final_yaw)) > YAW_LIMIT
            turning = abs(grasp_yaw - scene.hand_yaw) + abs(final_yaw - grasp_yaw)
            return turning + FITTING_YAWS[nut_on_peg] + 100.0 * beyond

        self._grasp_turn, self._nut_on_peg = min(product((0.0, np.pi), FITTING_YAWS), key=cost)
