"""robosuite 1.4.1: observations and success, by its own Python and, for what is known, by compiled code."""

import numpy as np

from common.errors import UserError
from envs.readout_kernel import (
    DIFFERENCE,
    NO_RELATION,
    POSE_IN_HAND,
    QPOS,
    QVEL,
    SITE_XPOS,
    XPOS,
    XQUAT,
    Memory,
    Plan,
    Region,
    read,
    succeeded,
)
from envs.robosuite141.build import MujocoEnv, model_and_data, task_of_env
from envs.tasks.task import Task

_RELATIONS = {"difference": DIFFERENCE, "pose": POSE_IN_HAND}


class Success:
    """robosuite's ``_check_success`` on the present, forwarded state."""

    def __init__(self, env: MujocoEnv) -> None:
        self._env = env
        self._memory = _memory(env)
        task = task_of_env(env)
        self._region = None if task is None else _success_region(env, task)

    def check(self) -> bool:
        if self._region is None:
            return bool(self._env._check_success())
        return succeeded(self._memory, self._region)


class Sensors:
    """Reads chosen Robomimic observations from the simulator's present, forwarded state.

    It calls robosuite's own sensors, in robosuite's order, and only those that the asked keys need, or reads the same
    numbers in compiled code where all keys are known to it: so a reading equals Robomimic's ``dataset_states_to_obs``
    for that state. robosuite's ``env.step`` returns something else: values
    sampled before the last substep's integration, and zeros for relative poses right after a reset.
    """

    def __init__(self, env: MujocoEnv, keys: tuple[str, ...]) -> None:
        """
        Raises:
            UserError: a key that this environment does not observe.
        """
        enabled = {name: obs for name, obs in env._observables.items() if obs.is_enabled()}
        known = [
            "object",
            *(name for name in enabled if np.shape(enabled[name].obs) != () or enabled[name].is_active()),
        ]
        unknown = [key for key in keys if key not in ("object", *enabled)]
        if unknown:
            raise UserError(f"obs_keys {unknown} are not observed by {type(env).__name__}: it has {known}.")
        objects = [name for name, obs in enabled.items() if obs.modality == "object"]
        wanted = set(keys)
        if wanted & {"object", *objects}:
            # Relative poses need the gripper's, and one another through robosuite's cache.
            wanted |= {*objects, "robot0_eef_pos", "robot0_eef_quat"}
        if wanted & {"robot0_joint_pos_cos", "robot0_joint_pos_sin"}:
            wanted.add("robot0_joint_pos")
        self._sensors = [(name, obs._sensor) for name, obs in enabled.items() if name in wanted]
        active_objects = tuple(name for name in objects if enabled[name].is_active())
        # robosuite's "object-state", the data set's `object`: its active object observables in order.
        self._parts = [active_objects if key == "object" else (key,) for key in keys]
        self._flat = tuple(name for part in self._parts for name in part)
        self._keys = keys
        self._memory = _memory(env)
        self._plan = _observation_plan(env, task_of_env(env), self.dims())

    def _readings(self) -> dict[str, np.ndarray]:
        cache: dict[str, np.ndarray] = {}
        for name, sensor in self._sensors:
            cache[name] = sensor(cache)
        return cache

    def dims(self) -> dict[str, int]:
        """Key -> number of values, in the order of the keys."""
        cache = self._readings()
        return {
            key: sum(np.size(cache[name]) for name in part) for key, part in zip(self._keys, self._parts, strict=True)
        }

    def read(self) -> np.ndarray:
        """All keys concatenated: (obs_dim,) float64."""
        return self.read_by_robosuite() if self._plan is None else read(self._memory, self._plan)

    def read_by_robosuite(self) -> np.ndarray:
        """The same from robosuite's own sensors."""
        cache = self._readings()
        return np.concatenate([np.atleast_1d(cache[name]) for name in self._flat])


def _memory(env: MujocoEnv) -> Memory:
    _, data = model_and_data(env)
    return Memory(data.site_xpos, data.xpos, data.xquat, data.qpos, data.qvel)


def _success_region(env: MujocoEnv, task: Task) -> Region:
    bodies, low, high, reach = task.goal(env)
    numbers = [env.sim.model.body_name2id(name) for name in bodies]
    site = env.robots[0].eef_site_id
    return Region(np.array(numbers), np.array(low, dtype=float), np.array(high, dtype=float), site, reach)


def _observation_plan(env: MujocoEnv, task: Task | None, dims: dict[str, int]) -> Plan | None:
    """The compiled form of an observation; None where it holds what only robosuite's own sensors know."""
    if task is None or len(env.robots) != 1:
        return None
    robot = env.robots[0]
    hand = env.sim.model.body_name2id(robot.robot_model.eef_name)
    thing = env.sim.model.body_name2id(task.object.name)
    site = robot.eef_site_id

    def position(body: int) -> list[tuple[int, int]]:
        return [(XPOS, 3 * body + i) for i in range(3)]

    def quaternion(body: int) -> list[tuple[int, int]]:
        return [(XQUAT, 4 * body + i) for i in (1, 2, 3, 0)]

    known = {
        "robot0_eef_pos": [(SITE_XPOS, 3 * site + i) for i in range(3)],
        "robot0_eef_quat": quaternion(hand),
        "robot0_gripper_qpos": [(QPOS, i) for i in robot._ref_gripper_joint_pos_indexes],
        "robot0_gripper_qvel": [(QVEL, i) for i in robot._ref_gripper_joint_vel_indexes],
        "robot0_joint_pos": [(QPOS, i) for i in robot._ref_joint_pos_indexes],
        "robot0_joint_vel": [(QVEL, i) for i in robot._ref_joint_vel_indexes],
        "object": [*position(thing), *quaternion(thing)],
    }
    if not set(dims) <= set(known):
        return None
    copies: list[tuple[int, int, int]] = []
    relation, relation_target, begin = NO_RELATION, 0, 0
    for key, dim in dims.items():
        copies += [(source, index, begin + i) for i, (source, index) in enumerate(known[key])]
        if key == "object":
            relation, relation_target = _RELATIONS[task.object_in_hand], begin + 7
        begin += dim
    source, address, target = np.array(copies).T.copy()
    return Plan(source, address, target, relation, relation_target, site, hand, thing, begin)
