"""`collect --dataset`: demonstrations of a file, played again from other initial states."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from commands.collect import collect
from common.errors import UserError
from datamodules.demonstrations import Demonstration, write_dataset
from datamodules.hdf5 import DatasetFile
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import default_env_args, find_task, object_pose_begin
from experts import adaptation
from experts.adaptation import Adapted, AdaptingAgent, Pose, Source
from tests.hdf5_problems import problems
from tests.worker_threads import worker_threads

TASKS = ("lift", "can", "square")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("few")
    paths = {task: folder / f"{task}.hdf5" for task in TASKS}
    with worker_threads():
        for task, path in paths.items():
            collect(task, 6, path, seed=3, n_envs=6)  # type: ignore[arg-type]
    return paths


def read(path: Path) -> list[Demonstration]:
    with DatasetFile(path) as file:
        return [file.read(name) for name in file.names()]


def poses(demonstration: Demonstration, task: str) -> tuple[Pose, Pose]:
    """Of hand and object, T each."""
    begin = object_pose_begin(find_task(task))
    hand = np.concatenate([demonstration.obs["robot0_eef_pos"], demonstration.obs["robot0_eef_quat"]], axis=1)
    return Pose.read(hand), Pose.read(demonstration.obs["object"][:, begin : begin + 7])


@pytest.fixture
def no_tremor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "TREMOR", 0.0)
    monkeypatch.setattr(adaptation, "CALM", 0.0)


@pytest.mark.parametrize("task", TASKS)
def test_a_few_make_many_that_replay(few: dict[str, Path], task: str, tmp_path: Path) -> None:
    path = tmp_path / "many.hdf5"
    with worker_threads():
        collect(task, 8, path, few[task], seed=3, n_envs=4)  # type: ignore[arg-type]
    assert problems(path) == []
    with h5py.File(path) as file:
        assert file["data"].attrs["source"] == f"adapted from {task}.hdf5, seed 3"
    env = RobosuiteEnv(default_env_args(task))
    made = read(path)
    for demonstration in made:
        env.reset_to(demonstration.states[0], demonstration.model_file)
        solved = [env.advance(action) for action in demonstration.actions]
        np.testing.assert_array_equal(solved, demonstration.dones.astype(bool))
        assert solved[-1]
    env.close()
    starts = [poses(demonstration, task)[1].position[0] for demonstration in [*made, *read(few[task])]]
    apart = np.linalg.norm(np.array(starts)[:, None] - starts, axis=-1) + np.eye(len(starts))
    assert apart.min() > 1e-5


def test_the_seed_alone_decides(few: dict[str, Path], tmp_path: Path) -> None:
    for n_envs in (1, 3):
        collect("lift", 3, tmp_path / f"{n_envs}.hdf5", few["lift"], seed=5, n_envs=n_envs)
    for one, three in zip(read(tmp_path / "1.hdf5"), read(tmp_path / "3.hdf5"), strict=True):
        np.testing.assert_array_equal(one.actions, three.actions)
        np.testing.assert_array_equal(one.states, three.states)


@pytest.mark.usefixtures("no_tremor")
@pytest.mark.parametrize("task", TASKS)
def test_on_the_sources_own_way_its_actions_are_played(few: dict[str, Path], task: str) -> None:
    for demonstration in read(few[task]):
        source = Source.read(demonstration, object_pose_begin(find_task(task)))
        adapted = Adapted(source, np.zeros(2), 0.0, Rotation.identity(), np.random.default_rng(0))
        hand, thing = poses(demonstration, task)
        played = [adapted.act(hand[t], thing[t]) for t in range(len(demonstration))]
        np.testing.assert_allclose(played, demonstration.actions, atol=1e-6)
        assert source.held.any()


@pytest.mark.usefixtures("no_tremor")
def test_near_an_object_that_lies_elsewhere_motions_turn_with_it(few: dict[str, Path]) -> None:
    turn, displacement = 0.4, np.array([0.03, -0.02])
    rotation = Rotation.from_rotvec([0, 0, turn])
    for demonstration in read(few["square"]):
        source = Source.read(demonstration, object_pose_begin(find_task("square")))
        source = replace(source, bend=np.ones(len(demonstration)))
        hand, thing = poses(demonstration, "square")
        adapted = Adapted(source, displacement, turn, Rotation.identity(), np.random.default_rng(0))
        for t in range(len(demonstration)):
            moved = thing.position[t] + [*displacement, 0]
            there = Pose(rotation.apply(hand.position[t] - thing.position[t]) + moved, rotation * hand.rotation[t])
            action = adapted.act(there, Pose(moved, rotation * thing.rotation[t]))
            expected = [rotation.apply(demonstration.actions[t, i : i + 3]) for i in (0, 3)]
            np.testing.assert_allclose(action[:6], np.clip(np.concatenate(expected), -1, 1), atol=1e-6)


def test_the_displacement_is_taken_up_before_the_grasp_and_given_up_before_the_goal(few: dict[str, Path]) -> None:
    for demonstration in read(few["square"]):
        source = Source.read(demonstration, object_pose_begin(find_task("square")))
        grasp = int(np.argmax(source.held))
        assert source.bend[0] == 0
        assert source.bend[grasp - 5 : grasp].min() > 0.9
        assert source.bend[source.arrived].max() == 0
        assert source.arrived[-1]
    for demonstration in read(few["lift"]):  # nowhere to carry it to
        assert Source.read(demonstration, 0).bend[-1] == 1


@pytest.mark.usefixtures("no_tremor")
def test_a_nut_that_lies_askew_in_the_hand_is_brought_where_the_sources_was(few: dict[str, Path]) -> None:
    demonstration = read(few["square"])[0]
    source = Source.read(demonstration, object_pose_begin(find_task("square")))
    hand, thing = poses(demonstration, "square")
    adapted = Adapted(source, np.zeros(2), 0.0, Rotation.identity(), np.random.default_rng(0))
    slipped = np.array([0.01, 0.0, 0.0])
    for t in range(len(demonstration)):
        action = adapted.act(hand[t], Pose(thing.position[t] + slipped, thing.rotation[t]))
        if source.held[t]:
            turned = Rotation.from_rotvec(demonstration.actions[t, 3:6] * adaptation.RADIANS_PER_UNIT)
            lever = (turned.as_matrix() - np.eye(3)) @ (thing.position[t] + slipped - hand.position[t])
            of_source = (turned.as_matrix() - np.eye(3)) @ (thing.position[t] - hand.position[t])
            ahead = action[:3] * adaptation.METRES_PER_UNIT + lever + slipped
            expected = demonstration.actions[t, :3] * adaptation.METRES_PER_UNIT + of_source
            if np.abs(action[:3]).max() < 1:
                np.testing.assert_allclose(ahead, expected, atol=1e-6)


def test_an_object_that_looks_the_same_after_a_turn_is_not_turned(few: dict[str, Path]) -> None:
    dims = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "object": 14}
    for task, yaw, least in (("lift", 1.5, 1.5 - np.pi / 2), ("can", 1.5, 0.0), ("square", 1.5, 1.5)):
        agent = AdaptingAgent(read(few[task])[:1], task, dims)
        source = agent._sources[0]
        assert agent._turn(source, Rotation.from_rotvec([0, 0, yaw]) * source.object.rotation[0]) == pytest.approx(
            least
        )


def test_what_cannot_be_adapted_is_refused(few: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "x.hdf5"
    with pytest.raises(UserError, match="transport cannot be adapted"):
        collect("transport", 1, output, few["lift"])
    with pytest.raises(UserError, match=r"lift\.hdf5 is of Lift, not of --task can"):
        collect("can", 1, output, few["lift"])
    with pytest.raises(UserError, match="no such file"):
        collect("lift", 1, output, tmp_path / "none.hdf5")
    absolute = default_env_args("lift")
    absolute["env_kwargs"]["controller_configs"]["control_delta"] = False
    write_dataset(tmp_path / "absolute.hdf5", read(few["lift"]), absolute, {})
    with pytest.raises(UserError, match=r"target poses\. Expected motions"):
        collect("lift", 1, output, tmp_path / "absolute.hdf5")
    assert not output.exists()


def test_pieces_that_end_before_the_goal_make_nothing(few: dict[str, Path], tmp_path: Path) -> None:
    pieces = [Demonstration(demo.actions[:15], {k: v[:15] for k, v in demo.obs.items()}) for demo in read(few["lift"])]
    write_dataset(tmp_path / "pieces.hdf5", pieces, default_env_args("lift"), {})
    with pytest.raises(UserError, match="all of 2 episodes failed"), worker_threads():
        collect("lift", 2, tmp_path / "x.hdf5", tmp_path / "pieces.hdf5", n_envs=2)
