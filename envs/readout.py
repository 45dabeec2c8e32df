"""Observations and success, by robosuite's own Python and, for what is known, by compiled code."""

from pkgutil import resolve_name
from typing import Protocol

import numpy as np

from common.errors import UserError
from envs.installed import header
from envs.readout_kernel import (
    BODY,
    BODY_MATRIX,
    GEOM,
    HAND_MINUS_OBJECT,
    OBJECT_MINUS_HAND,
    POSE_IN_HAND,
    QPOS,
    QVEL,
    SITE,
    SITE_XPOS,
    XQUAT,
    Memory,
    Plan,
    Region,
    read,
    read_poses,
    succeeded,
)
from envs.robosuite_common import MujocoEnv, model_and_data, task_of_env
from envs.simulator import simulator
from envs.tasks import object_pose_begin
from envs.tasks.task import Goal, Observed, Task


class TaskState(Protocol):
    """What the class that a task's ``state`` names provides."""

    def check(self) -> bool: ...

    def flags(self) -> tuple[float, ...]: ...


def _task_state(env: MujocoEnv) -> TaskState | None:
    task = task_of_env(env)
    if task is None or task.state is None:
        return None
    state: TaskState = resolve_name(task.state)(env)
    return state


class Success:
    """robosuite's ``_check_success`` on the present, forwarded state."""

    def __init__(self, env: MujocoEnv) -> None:
        self._env = env
        self._memory = _memory(env)
        task = task_of_env(env)
        self._region = None if task is None or task.goal is None else _success_region(env, task.goal(env))
        self._state = _task_state(env)

    def check(self) -> bool:
        if self._region is not None:
            return succeeded(self._memory, self._region)
        if self._state is not None:
            return self._state.check()
        return bool(self._env._check_success())


class Sensors:
    """Reads chosen Robomimic observations from the simulator's present, forwarded state.

    It calls robosuite's own sensors, in robosuite's order, and only those that the asked keys need, or reads the same
    numbers in compiled code where all keys are known to it: so a reading equals Robomimic's ``dataset_states_to_obs``
    for that state. robosuite's ``env.step`` returns something else: values sampled before the last substep's
    integration.

    robosuite 1.5 computes where an object lies in the hand's frame before it looks where the object is: of the object
    it takes the pose that the observation before had. Its files are made of that, and so are these readings:
    ``remember`` notes the pose. Before an episode's first observation the object is taken to be at rest.
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
            wanted |= {*objects, *(name for name in enabled if name.endswith(("eef_pos", "eef_quat")))}
        if wanted & {"robot0_joint_pos_cos", "robot0_joint_pos_sin"}:
            wanted.add("robot0_joint_pos")
        self._sensors = [(name, obs._sensor) for name, obs in enabled.items() if name in wanted]
        active_objects = tuple(name for name in objects if enabled[name].is_active())
        # robosuite's "object-state", the data set's `object`: its active object observables in order.
        self._parts = [active_objects if key == "object" else (key,) for key in keys]
        self._flat = tuple(name for part in self._parts for name in part)
        self._keys = keys
        self._env = env
        self._wants_accelerations = any(name.endswith("joint_acc") for name in wanted)
        self._memory = _memory(env)
        self._lags = header().OBJECT_LAYOUT.relation_lags and bool(wanted & {*objects})
        # What a relation is computed of, by robosuite's sensors and by compiled code.
        self._last_readings: dict[str, np.ndarray] = {}
        self._plan = _observation_plan(env, task_of_env(env), self.dims())
        self._last_compiled = np.empty((0 if self._plan is None else len(self._plan.objects), 7))
        self._state = _task_state(env)
        dims = list(self.dims().values())
        self._object_end = sum(dims[: keys.index("object") + 1]) if "object" in keys else 0
        self._last_poses = [
            (name, sensor)
            for name, sensor in self._sensors
            if name in objects and name.endswith(("_pos", "_quat")) and "_to_" not in name
        ]

    def remember(self) -> None:
        """Note what the next observation needs of the present state: before a control step, and at a reset."""
        if not self._lags:
            return
        if self._plan is not None:
            read_poses(self._memory, self._plan, self._last_compiled)
        else:
            self._last_readings = {name: sensor({}) for name, sensor in self._last_poses}

    def _accelerate(self) -> None:
        """Compute the accelerations of the present state, which a control step leaves out. Nothing else changes."""
        _, data = model_and_data(self._env)
        warm_start = data.qacc_warmstart.copy()
        self._env.sim.forward()
        data.qacc_warmstart[:] = warm_start

    def _readings(self) -> dict[str, np.ndarray]:
        if self._wants_accelerations:
            self._accelerate()
        cache = dict(self._last_readings)
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
        if self._plan is None:
            return self.read_by_robosuite()
        observation = read(self._memory, self._plan, self._last_compiled)
        if self._state is not None and "object" in self._keys:
            flags = self._state.flags()
            end = self._object_end
            observation[end - len(flags) : end] = flags
        return observation

    def read_by_robosuite(self) -> np.ndarray:
        """The same from robosuite's own sensors."""
        cache = self._readings()
        return np.concatenate([np.atleast_1d(cache[name]) for name in self._flat])


def _memory(env: MujocoEnv) -> Memory:
    _, data = model_and_data(env)
    return Memory(
        data.xpos,
        data.xquat,
        data.xmat,
        data.site_xpos,
        data.site_xmat,
        data.geom_xpos,
        data.geom_xmat,
        data.qpos,
        data.qvel,
    )


def _success_region(env: MujocoEnv, goal: Goal) -> Region | None:
    arm = simulator.arm_of(env)
    if arm is None:
        return None
    bodies, low, high, reach = goal
    numbers = [env.sim.model.body_name2id(name) for name in bodies]
    return Region(np.array(numbers), np.array(low, dtype=float), np.array(high, dtype=float), arm.site, reach)


def _numbers(env: MujocoEnv, thing: Observed) -> tuple[int, int]:
    """Kind and number of an observed object in the model."""
    kind = {"body": BODY, "body_matrix": BODY_MATRIX, "site": SITE, "geom": GEOM}[thing.kind]
    model = env.sim.model
    if kind == SITE:
        return kind, model.site_name2id(thing.name)
    if kind == GEOM:
        return kind, model.geom_name2id(thing.name)
    return kind, model.body_name2id(thing.name)


def _relation(task: Task) -> int:
    if task.object_in_hand == "pose":
        return POSE_IN_HAND
    return OBJECT_MINUS_HAND if header().OBJECT_LAYOUT.difference_from_hand else HAND_MINUS_OBJECT


def _observation_plan(env: MujocoEnv, task: Task | None, dims: dict[str, int]) -> Plan | None:
    """The compiled form of an observation; None where it holds what only robosuite's own sensors know."""
    arm = simulator.arm_of(env)
    if task is None or not task.objects or arm is None:
        return None
    copied = {
        "robot0_eef_pos": [(SITE_XPOS, 3 * arm.site + i) for i in range(3)],
        "robot0_eef_quat": [(XQUAT, 4 * arm.hand + i) for i in (1, 2, 3, 0)],
        "robot0_gripper_qpos": [(QPOS, i) for i in arm.gripper_qpos],
        "robot0_gripper_qvel": [(QVEL, i) for i in arm.gripper_dof],
        "robot0_joint_pos": [(QPOS, i) for i in arm.qpos],
        "robot0_joint_vel": [(QVEL, i) for i in arm.dof],
        "object": [],
    }
    if not set(dims) <= set(copied):
        return None
    begins = dict(zip(dims, np.cumsum([0, *dims.values()]).tolist(), strict=False))
    copies = [
        (source, index, begins[key] + i) for key in dims for i, (source, index) in enumerate(copied[key])
    ] or np.empty((0, 3), int)
    source, address, target = np.array(copies).T.copy()
    objects = task.objects if "object" in dims else ()
    kinds, numbers = np.array([_numbers(env, thing) for thing in objects], dtype=int).reshape(-1, 2).T.copy()
    size = 10 if task.object_in_hand == "difference" else 14  # of one object's numbers
    first = begins.get("object", 0) + size * np.arange(len(objects))
    own_pose = object_pose_begin(task)
    return Plan(
        source,
        address,
        target,
        kinds,
        numbers,
        own_target=first + own_pose,
        relation=_relation(task),
        relation_target=first if own_pose else first + 7,
        lags=header().OBJECT_LAYOUT.relation_lags,
        site=arm.site,
        hand=arm.hand,
        size=sum(dims.values()),
    )
