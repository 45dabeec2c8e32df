"""What a pool and its workers say to one another. Light to import."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from envs.tasks import DEFAULT_OBS_KEYS


@dataclass(frozen=True)
class EnvSpec:
    """The environments of a pool: the arguments of ``RobosuiteEnv`` and the length of the action chunks."""

    env_args: dict[str, Any]
    obs_keys: Sequence[str] = DEFAULT_OBS_KEYS
    pred_horizon: int = 4
    horizon: int = 400
    stepping: Literal["fused", "stock"] = "fused"
    render_size: tuple[int, int] | None = None  # (height, width); None: these environments do not render
    camera: str = "agentview"


@dataclass(frozen=True)
class Capture:
    """What to bring back beside the last observation of a chunk."""

    frames_every: int = 0  # a frame at reset and after every so many env steps of the episode; 0: none
    trajectory: bool = False


@dataclass(frozen=True)
class Trajectory:
    """Every env step of a chunk or an episode (T steps), in float64."""

    states: np.ndarray  # (T, S) before each step
    observations: np.ndarray  # (T, D) before each step
    actions: np.ndarray  # (T, A) as executed
    rewards: np.ndarray  # (T,)
    last_observation: np.ndarray  # (D,) after the last step


@dataclass(frozen=True)
class Retraced:
    """A recording's T states, looked up in the simulator, and what becomes of its actions when played again."""

    observations: np.ndarray  # (T + 1, D) float64: of each state, and after the last action
    successes: np.ndarray  # (T,) bool: after each action
    departure: float  # largest distance of a position (m, rad) of the replay from the recording
    departed_at: int | None  # first step after which that distance is above a centimetre


@dataclass(frozen=True)
class Reply:
    """An environment's answer. To ``reset``, ``reset_to`` and ``step``: ``obs``; to ``call``: ``value``."""

    # (D,) float32; empty in the reply to `call`.
    obs: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    reward: float = 0.0  # summed over the chunk
    terminated: bool = False
    truncated: bool = False
    env_steps: int = 0  # actions of the chunk that were executed
    is_success: bool = False
    frames: list[np.ndarray] | None = None  # (H, W, 3) uint8 each
    trajectory: Trajectory | None = None
    model_file: str | None = None  # at reset, where a trajectory is captured
    value: Any = None


@dataclass(frozen=True)
class Request:
    """A method of the worker's ``Simulation`` number ``slot``, with its arguments."""

    slot: int
    method: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Failure:
    """An exception in a worker."""

    traceback: str
    user_message: str | None  # the message of a UserError
