"""The record of a task. Light to import: the command line lists tasks by it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class Body(NamedTuple):
    """An object whose pose the task observes."""

    observable: str  # robosuite's prefix of its observables: <observable>_pos, <observable>_quat
    name: str  # the body in the MuJoCo model


class Goal(NamedTuple):
    """Success: some body's centre is in its box and, where ``reach`` asks for it, the hand is off it."""

    bodies: list[str]  # names of n bodies in the MuJoCo model
    low: list[list[float]]  # (n, 3) m, excluded
    high: list[list[float]]  # (n, 3) m, excluded
    reach: float  # 1 - tanh(10 distance between hand and body) must be below this; 2 allows any distance


class RandomBox(NamedTuple):
    """A box whose size robosuite draws anew whenever it builds the model: nothing else of a model is random."""

    attribute: str  # of the robosuite environment: its description of the box
    body: str  # in the MuJoCo model
    geoms: str  # how the names of its geoms begin
    size_min: float  # m, half edge; three are drawn
    size_max: float
    density: float  # kg/m^3


@dataclass(frozen=True)
class Task:
    """One task: how robosuite and the command line call it, and the geometry that its resets and observations need.

    Args:
        name: in the command line.
        env_name: robosuite's.
        horizon: episode length (env steps) of Robomimic's registry for the ``ph`` data set.
        object: whose pose ``object`` observes.
        object_in_hand: how ``object`` says where that is for the hand: the difference of positions, or its pose in the
            hand's frame.
        goal: of the robosuite environment, once it is built.
        random_box: what robosuite draws when it builds the model.
        expert: the scripted operator's class as "module:name"; None: it has none.
    """

    name: str
    env_name: str
    horizon: int
    object: Body
    object_in_hand: Literal["difference", "pose"]
    goal: Callable[[Any], Goal]
    random_box: RandomBox | None = None
    expert: str | None = None

    @property
    def object_dim(self) -> int:
        """Number of values of ``object``: position and quaternion, then those for the hand."""
        return 7 + {"difference": 3, "pose": 7}[self.object_in_hand]
