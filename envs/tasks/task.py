"""The record of a task. Light to import: the command line lists tasks by it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class Observed(NamedTuple):
    """Something whose pose the task observes."""

    name: str  # in the MuJoCo model
    kind: Literal["body", "body_matrix", "site", "geom"] = "body"  # body_matrix: with the quaternion of its matrix


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
        robots: how many arms it takes, each a Panda.
        objects: whose poses ``object`` observes, in order; empty: robosuite's own sensors read it.
        object_in_hand: how ``object`` says where they are for the hand: the difference of positions, or their poses in
            the hand's frame.
        goal: of the robosuite environment, once it is built; None: ``state`` or robosuite's own check decides.
        state: class as "module:name" that, made with the robosuite environment, gives ``check()`` for success and the
            ``flags()`` that ``object`` ends with.
        random_box: what robosuite draws when it builds the model.
        random_model: whether it draws more than that, so that every reset has to build it anew.
        yaw_period: turn of the (one) object about the vertical after which it looks the same, radians; 0: any turn;
            None: the task is more than bringing one object somewhere.
        expert: the scripted operator's class as "module:name"; None: it has none.
    """

    name: str
    env_name: str
    horizon: int
    object_dim: int  # number of values of `object`
    robots: int = 1
    objects: tuple[Observed, ...] = ()
    object_in_hand: Literal["difference", "pose"] = "pose"
    goal: Callable[[Any], Goal] | None = None
    state: str | None = None
    random_box: RandomBox | None = None
    random_model: bool = False
    yaw_period: float | None = None
    expert: str | None = None

    @property
    def obs_keys(self) -> tuple[str, ...]:
        """What policies of the task usually observe."""
        each = ("eef_pos", "eef_quat", "gripper_qpos")
        return (*(f"robot{i}_{key}" for i in range(self.robots) for key in each), "object")
