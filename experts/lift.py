"""Scripted expert for Lift: grasp the cube across two of its faces and raise it."""

import numpy as np

from experts.expert import CLOSE, OPENED_WIDTH, Expert, Scene, Target, up, wrap_angle

GRASPED_WIDTH = 0.046  # fingers closer than this hold the cube, whose edge measures 40 to 44 mm
MISSED_WIDTH = 0.034
LIFT_HEIGHT = 0.20


class LiftExpert(Expert):
    """reach -> close -> lift; a miss leads back to reach."""

    task = "lift"
    pace = 0.7
    clearance = 0.03

    def reach(self, scene: Scene) -> Target:
        yaw, goal = self._grasp(scene)
        if scene.width > OPENED_WIDTH and np.linalg.norm(goal - scene.hand) < 0.012:
            self.hesitate()
            return self.enter(self.close, scene)
        return self.approach(scene, goal, yaw)

    def close(self, scene: Scene) -> Target:
        if scene.width < GRASPED_WIDTH:
            return self.enter(self.lift, scene)
        yaw, goal = self._grasp(scene)
        return Target(goal, yaw, CLOSE)

    def lift(self, scene: Scene) -> Target:
        if scene.width < MISSED_WIDTH or np.linalg.norm(scene.object - scene.hand) > 0.05:
            return self.enter(self.reach, scene)
        return Target(scene.hand + up(LIFT_HEIGHT), scene.hand_yaw, CLOSE)

    def _grasp(self, scene: Scene) -> tuple[float, np.ndarray]:
        """Yaw and position of the grasp: of the cube's four equal yaws the one nearest to the arm's straight pose."""
        quarter = np.pi / 2
        yaw = wrap_angle(scene.object_yaw) % quarter
        yaw = yaw - quarter if yaw > quarter / 2 else yaw
        return yaw + self.manner.yaw_offset, scene.object + self.manner.grasp_offset
