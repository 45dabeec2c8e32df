"""The initial states of robosuite's resets without its rebuilds, and its model files."""

import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np

from common.errors import UserError
from envs.installed import header
from envs.robosuite_common import MujocoEnv, model_and_data, task_of_env
from envs.simulator import simulator
from envs.tasks.task import RandomBox

# ruff: noqa: I001 - envs.robosuite_common prepares these imports
import mujoco
from robosuite.utils.mjcf_utils import array_to_string


def can_reset_without_rebuild(env: MujocoEnv) -> bool:
    """Whether ``seeded_reset`` knows all that a rebuild of this environment's model would vary."""
    task = task_of_env(env)
    return task is not None and not task.random_model


def _random_box(env: MujocoEnv) -> RandomBox | None:
    task = task_of_env(env)
    return None if task is None else task.random_box


def seeded_reset(env: MujocoEnv, seed: int) -> None:
    """Bring ``env`` to the state that robosuite's own hard reset gives when it draws from ``seed``.

    robosuite rebuilds the whole model (0.2-1.5 s) at every hard reset, of which only the size of the task's
    ``random_box`` is random. Here the model stays, the same numbers are drawn in the same order, and the size is
    written into it.
    """
    with simulator.drawing(env, seed) as uniform:
        if can_reset_without_rebuild(env):
            box = _random_box(env)
            if box is not None:
                set_box_size(env, box, np.array([uniform(box.size_min, box.size_max) for _ in range(3)]))
            env.sim.reset()
            env._reset_internal()
        else:
            env.hard_reset = True
            env.reset()
    _forward_afresh(env)


def reset_to_state(env: MujocoEnv, state: np.ndarray) -> None:
    """Begin an episode at ``state`` (S,), a flattened MjSimState.

    As after robosuite's reset, the posture that the controller's null-space torques hold is the arm's own in that
    state: so the actions of a demonstration, replayed from its ``states[0]``, give back its states exactly.
    """
    model, _ = model_and_data(env)
    qpos = state[1 : 1 + model.nq]
    usual = [robot.init_qpos for robot in env.robots]
    for robot in env.robots:
        robot.init_qpos = qpos[robot._ref_joint_pos_indexes]
    env.sim.reset()
    env.deterministic_reset = True
    env._reset_internal()
    env.deterministic_reset = False
    for robot, init_qpos in zip(env.robots, usual, strict=True):
        robot.init_qpos = init_qpos
    env.sim.set_state_from_flattened(state)
    for controller in simulator.controllers(env):
        # In the first substep of an episode robosuite's controller uses what it saw when it was made: with the arm in
        # place and the fingers not. Positions are those of `state` already, velocities may not be.
        mass_matrix = controller.mass_matrix
        controller.update(force=True)
        controller.mass_matrix = mass_matrix
    _forward_afresh(env)


def _forward_afresh(env: MujocoEnv) -> None:
    """Compute all that derives from the state, with the solver's warm start where every episode begins: at zero.

    It would else depend on how the state was reached, and a replay would drift from its original by rounding.
    """
    env.sim.data.qacc_warmstart[:] = 0.0
    env.sim.forward()


def set_box_size(env: MujocoEnv, box: RandomBox, size: np.ndarray) -> None:
    """Give ``box`` the half edges ``size`` (3,) in m, and the mass, inertia and bounds that follow from them."""
    model, data = model_and_data(env)
    body = env.sim.model.body_name2id(box.body)
    geoms = np.flatnonzero(model.geom_bodyid == body)
    model.geom_size[geoms] = size
    model.geom_rbound[geoms] = np.linalg.norm(size)
    model.geom_aabb[geoms, 3:] = size
    nodes = model.body_bvhadr[body] + np.arange(model.body_bvhnum[body])
    model.bvh_aabb[nodes, 3:] = size
    x, y, z = size**2
    mass = 8 * box.density * size.prod()
    model.body_mass[body] = mass
    model.body_inertia[body] = mass * np.array([y + z, x + z, x + y]) / 3
    mujoco.mj_setConst(model, data)
    # Newer versions of mj_setConst leave out what scales the solver's tolerance; summed one by one, as MuJoCo does.
    model.stat.meaninertia = np.cumsum(model.dof_M0)[-1] / model.nv
    # robosuite's own description of the box: placement reads its size, and the model file is made of it.
    getattr(env, box.attribute).size = list(size)
    for geom in _box_geoms(box, env.model.root):
        geom.set("size", array_to_string(size))


def _box_geoms(box: RandomBox, root: ElementTree.Element) -> list[ElementTree.Element]:
    """The box's geoms in an MJCF tree."""
    return [geom for geom in root.iter("geom") if geom.get("name", "").startswith(box.geoms)]


def model_xml(env: MujocoEnv) -> str:
    """robosuite's MJCF with the cube's present size, in the form that ``load_model_xml`` and Robomimic reload."""
    return env.edit_model_xml(env.model.get_xml())


def load_model_xml(env: MujocoEnv, xml: str) -> bool:
    """Make the simulated model that of ``xml``, a demonstration's ``model_file``; whether that took a rebuild.

    Paths of meshes and textures on the machine that wrote the file are replaced by this installation's. A file of
    another version of robosuite, whose geometry has other names, is replaced by the installed one's own model, with the
    box of the file.

    Raises:
        UserError: ``xml`` is not a model that this MuJoCo can read, or is one of another task.
    """
    try:
        wanted = env.edit_model_xml(xml)
        box = _random_box(env)
        geoms = [] if box is None else _box_geoms(box, ElementTree.fromstring(wanted))
        if box is not None and geoms:
            set_box_size(env, box, np.array([float(number) for number in geoms[0].get("size", "").split()]))
        if wanted == model_xml(env):
            return False
        theirs = mujoco.MjModel.from_xml_string(wanted)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"model_file is not a model that MuJoCo {mujoco.__version__} can read: {error}") from error
    ours, _ = model_and_data(env)
    if _names(theirs, "joint") != _names(ours, "joint"):
        raise UserError(
            f"model_file is not one of {type(env).__name__}: its joints are {_names(theirs, 'joint')}, expected "
            f"{_names(ours, 'joint')}."
        )
    missing = set(_names(ours, "geom")) - set(_names(theirs, "geom"))
    if missing:
        warnings.warn(
            f"model_file was written by another version than {header().SIMULATES} (it lacks {len(missing)} of its "
            "geoms): simulating the installed version's own model instead",
            stacklevel=3,
        )
        return False
    env.reset_from_xml_string(wanted)
    return True


def _names(model: mujoco.MjModel, kind: str) -> list[str]:
    """Names of all joints or geoms of a model, in its order."""
    count = {"joint": model.njnt, "geom": model.ngeom}[kind]
    return [getattr(model, kind)(i).name for i in range(count)]


def rebuild(env: MujocoEnv) -> None:
    """Give ``env`` robosuite's own model again, after another was loaded."""
    with simulator.drawing(env, 0):
        env.hard_reset = True
        env.reset()
