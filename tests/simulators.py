"""The installed robosuite as a user of robosuite itself would drive it."""

from typing import Any

import numpy as np

from envs.tasks import TASKS

ONE_ARM = [name for name, task in TASKS.items() if task.robots == 1]
WITH_GOAL = [name for name, task in TASKS.items() if task.goal is not None]


def seeded_hard_reset(stock: Any, seed: int) -> dict[str, np.ndarray]:
    """robosuite's own reset, with whatever it draws from seeded: numpy's global generator, from 1.5 on its own."""
    assert stock.hard_reset, "robosuite's default"
    if hasattr(stock, "rng"):
        stock.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
    else:
        np.random.seed(seed)
    reading: dict[str, np.ndarray] = stock.reset()
    return reading


def controllers(env_args: dict[str, Any]) -> list[dict[str, Any]]:
    """The arms' controller settings in a Robomimic header, to be changed in place."""
    configs = env_args["env_kwargs"]["controller_configs"]
    return list(configs["body_parts"].values()) if "body_parts" in configs else [configs]
