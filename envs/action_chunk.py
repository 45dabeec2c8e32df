"""Open-loop execution of action chunks."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from envs.robosuite_env import RobosuiteEnv


class ActionChunkEnv(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Takes chunks of actions (pred_horizon, action_dim); stops inside a chunk at success or at the time limit.

    The observation is computed once, after the last executed action.
    """

    env: RobosuiteEnv

    def __init__(self, env: RobosuiteEnv, pred_horizon: int) -> None:
        super().__init__(env)
        low, high = (np.tile(bound, (pred_horizon, 1)) for bound in (env.action_space.low, env.action_space.high))
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)

    def step(
        self,
        action: np.ndarray,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Execute ``action`` (pred_horizon, action_dim).

        Args:
            action: the chunk.
            before, after: called before and after every env step of it.

        Returns:
            Observation (obs_dim,) float32, summed reward, terminated, truncated and
            {"is_success": bool, "env_steps": int, the number of actions executed}.
        """
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"an action chunk of shape {np.shape(action)}: expected {self.action_space.shape}")
        executed = 0
        success = truncated = False
        while executed < len(action) and not (success or truncated):
            if before is not None:
                before()
            success = self.env.advance(action[executed])
            executed += 1
            truncated = not success and self.env.length >= self.env.horizon
            if after is not None:
                after()
        obs = self.env.observe().astype(np.float32)
        return obs, float(success), success, truncated, {"is_success": success, "env_steps": executed}
