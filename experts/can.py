"""Scripted expert for Can (PickPlaceCan): carry the can over the wall into its compartment and let go."""

import numpy as np

from experts.expert import CLOSE, OPENED_WIDTH, Expert, Scene, Target, up

GRASPED_WIDTH = 0.055  # fingers closer than this hold the can
MISSED_WIDTH = 0.030
RELEASED_WIDTH = 0.060
# Where to let go. The compartment's centre, (0.1975, 0.4025), is out of the arm's reach at this height.
DROP = np.array([0.165, 0.365])
CARRY_HEIGHT = 1.00  # the bins' walls end at 0.90, and the can reaches 4 cm below its centre
DROP_HEIGHT = 0.94


class CanExpert(Expert):
    """reach -> close -> carry -> release; a miss or a lost can leads back to reach."""

    task = "can"
    clearance = 0.05

    def reach(self, scene: Scene) -> Target:
        goal = scene.object + self.manner.grasp_offset
        if scene.width > OPENED_WIDTH and np.linalg.norm(goal - scene.hand) < 0.014:
            self.hesitate()
            return self.enter(self.close, scene)
        return self.approach(scene, goal, self.manner.yaw_offset)

    def close(self, scene: Scene) -> Target:
        if scene.width < GRASPED_WIDTH:
            return self.enter(self.carry, scene)
        return Target(scene.object + self.manner.grasp_offset, self.manner.yaw_offset, CLOSE)

    def carry(self, scene: Scene) -> Target:
        if scene.width < MISSED_WIDTH or np.linalg.norm(scene.object - scene.hand) > 0.06:
            return self.enter(self.reach, scene)
        way = DROP - scene.object[:2]
        left = float(np.linalg.norm(way))
        if left < 0.025 and scene.object[2] < DROP_HEIGHT + 0.02:
            self.hesitate()
            return self.enter(self.release, scene)
        free = np.clip((scene.object[2] - 0.88) / 0.06, 0.0, 1.0)  # straight up first, then sideways
        height = CARRY_HEIGHT - (CARRY_HEIGHT - DROP_HEIGHT) * np.clip(1.5 - left / 0.06, 0.0, 1.0)
        move = np.append(free * way, height - scene.object[2])
        return Target(scene.hand + move, self.manner.yaw_offset, CLOSE)

    def release(self, scene: Scene) -> Target:
        rise = 0.05 if scene.width > RELEASED_WIDTH else 0.0
        return Target(scene.hand + up(rise), self.manner.yaw_offset)
