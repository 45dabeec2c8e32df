"""`collect --dataset`: demonstrations of a file, played again from other initial states."""

import re
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
AT_LEAST = {"lift": 0.8, "can": 0.5, "square": 0.4}  # of episodes succeed: 5 sources, far from most initial states


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("few")
    paths = {task: folder / f"{task}.hdf5" for task in TASKS}
    with worker_threads():
        for task, path in paths.items():
            collect(task, 6, path, seed=3, n_envs=6)  # type: ignore[arg-type]
    return paths


def read(path: Path, filter_key: str | None = None) -> list[Demonstration]:
    with DatasetFile(path) as file:
        return [file.read(name) for name in file.names(filter_key)]


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
def test_a_few_make_many_that_replay(
    few: dict[str, Path], task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many.hdf5"
    with worker_threads():
        collect(task, 8, path, few[task], filter_key="train", seed=3, n_envs=4)  # type: ignore[arg-type]
    shown, _, said = capsys.readouterr().out.partition("wrote ")
    assert re.search(rf"{task}\.hdf5, \d+ of \d+ succeed", shown)
    words = said.split()
    tried = int(words[words.index("episodes") - 1])
    assert 8 / tried >= AT_LEAST[task]
    horizon = max(map(len, read(few[task], "train"))) + adaptation.LONGER  # which every failure plays to
    assert int(words[words.index("env") - 1]) == sum(map(len, read(path))) + (tried - 8) * horizon
    assert problems(path) == []
    with h5py.File(path) as file:
        source = file["data"].attrs["source"]
        assert re.fullmatch(rf"adapted from {task}\.hdf5 \(scripted expert, proficient, seed \d+\), seed 3", source)
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


def agent_of(few: dict[str, Path], task: str, n: int) -> AdaptingAgent:
    begin = object_pose_begin(find_task(task))
    dims = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "object": find_task(task).object_dim}
    return AdaptingAgent([Source.read(demonstration, begin) for demonstration in read(few[task])[:n]], task, dims)


@pytest.mark.parametrize(
    ("task", "yaw", "turn"), [("lift", 1.4, 1.4 - np.pi / 2), ("can", 1.4, 0.0), ("square", 1.4, 1.4)]
)
def test_an_object_that_looks_the_same_after_a_turn_is_turned_no_further(
    few: dict[str, Path], task: str, yaw: float, turn: float
) -> None:
    agent = agent_of(few, task, 1)
    [source] = agent._sources
    start = source.object[0]
    about = Rotation.from_rotvec([0, 0, yaw])
    thing = Pose(start.position + np.array([0.02, 0.01, 0]), about * start.rotation)
    adapted = agent._begin(thing, np.random.default_rng(0))
    assert adapted._turn == pytest.approx(turn)
    np.testing.assert_allclose(adapted._displacement, [0.02, 0.01])
    looked = (thing.rotation * adapted._looks * start.rotation.inv()).as_rotvec()  # how the source's would have turned
    np.testing.assert_allclose(looked, [0, 0, turn], atol=1e-9)


def test_only_sources_whose_objects_lie_most_alike_are_played(few: dict[str, Path]) -> None:
    agent = agent_of(few, "square", 6)
    thing = agent._sources[0].object[0]
    chosen = {id(agent._begin(thing, np.random.default_rng(i))._source) for i in range(60)}
    unlike = [
        np.linalg.norm(source.object.position[0] - thing.position) / 0.02
        + (source.object.rotation[0] * thing.rotation.inv()).magnitude() / np.deg2rad(15)
        for source in agent._sources
    ]
    farthest = agent._sources[int(np.argmax(unlike))]
    assert chosen == {id(source) for source in agent._sources} - {id(farthest)}


def test_what_cannot_be_adapted_is_refused(few: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "x.hdf5"

    def written(name: str, demonstrations: list[Demonstration], **controller: object) -> Path:
        env_args = default_env_args("lift")
        configs = env_args["env_kwargs"]["controller_configs"]
        (configs["body_parts"]["right"] if "body_parts" in configs else configs).update(controller)
        write_dataset(tmp_path / name, demonstrations, env_args, {})
        return tmp_path / name

    lift = read(few["lift"])[:1]
    directionless = {**lift[0].obs, "robot0_eef_quat": np.zeros((len(lift[0]), 4))}
    narrow = {**lift[0].obs, "object": lift[0].obs["object"][:, :9]}
    for match, task, dataset in (
        ("transport cannot be adapted", "transport", few["lift"]),
        (r"lift\.hdf5 is of Lift, not of --task can", "can", few["lift"]),
        ("no such file", "lift", tmp_path / "none.hdf5"),
        ("motions of the hand", "lift", written("absolute.hdf5", lift, control_delta=False, input_type="absolute")),
        ("motions of the hand", "lift", written("joints.hdf5", lift, type="JOINT_VELOCITY")),
        ("motions of the hand", "lift", written("small.hdf5", lift, output_max=[0.02] * 3 + [0.2] * 3)),
        ("demo_0: .*zero norm", "lift", written("quat.hdf5", [replace(lift[0], obs=directionless, next_obs={})])),
        ("an object of 9 numbers", "lift", written("narrow.hdf5", [replace(lift[0], obs=narrow, next_obs={})])),
        ("actions of 4", "lift", written("four.hdf5", [replace(lift[0], actions=lift[0].actions[:, :4])])),
    ):
        with pytest.raises(UserError, match=match):
            collect(task, 1, output, dataset)
    with pytest.raises(UserError, match="leave one of them out"):
        collect("lift", 1, output, few["lift"], style="mixed")
    with pytest.raises(UserError, match="no filter key '20_percent'"):
        collect("lift", 1, output, few["lift"], filter_key="20_percent")
    with pytest.raises(UserError, match="--filter_key chooses demonstrations of a --dataset"):
        collect("lift", 1, output, filter_key="train")
    with pytest.raises(UserError, match="--filter_key and --demos both choose"):
        collect("lift", 1, output, few["lift"], filter_key="train", demos="0")
    with pytest.raises(UserError, match=r"has no demo_6\. It holds 6, from demo_0 to demo_5"):
        collect("lift", 1, output, few["lift"], demos="0-6")
    failed = [replace(demonstration, rewards=np.zeros(len(demonstration))) for demonstration in lift]
    with pytest.raises(UserError, match="none of these demonstrations succeeds"):
        collect("lift", 1, output, written("failed.hdf5", failed))
    nearer = [replace(demonstration, rewards=np.linspace(0.01, 0.3, len(demonstration))) for demonstration in lift]
    with pytest.raises(UserError, match="its rewards are shaped"):
        collect("lift", 1, output, written("shaped.hdf5", nearer))
    before = few["lift"].read_bytes()
    with pytest.raises(UserError, match="choose another file"):
        collect("lift", 1, few["lift"], few["lift"])
    assert few["lift"].read_bytes() == before
    assert not output.exists()


def test_pieces_that_end_before_the_goal_make_nothing(few: dict[str, Path], tmp_path: Path) -> None:
    pieces = [Demonstration(demo.actions[:15], {k: v[:15] for k, v in demo.obs.items()}) for demo in read(few["lift"])]
    write_dataset(tmp_path / "pieces.hdf5", pieces, default_env_args("lift"), {})
    with pytest.raises(UserError, match=r"all of 10\d episodes failed"), worker_threads():
        collect("lift", 2, tmp_path / "x.hdf5", tmp_path / "pieces.hdf5", n_envs=8)
    assert not (tmp_path / "x.hdf5").exists()


def test_only_the_named_demonstrations_that_succeed_are_played(
    few: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demos = read(few["lift"])
    demos[0] = replace(demos[0], rewards=np.zeros(len(demos[0])))
    write_dataset(tmp_path / "some.hdf5", demos, default_env_args("lift"), {})
    for i, numbers in enumerate(("0,2", "2")):
        collect("lift", 1, tmp_path / f"{i}.hdf5", tmp_path / "some.hdf5", demos=numbers, seed=5, n_envs=1)
    assert "1 of 2 demonstrations fail (no reward is above 0)" in capsys.readouterr().out
    np.testing.assert_array_equal(read(tmp_path / "0.hdf5")[0].actions, read(tmp_path / "1.hdf5")[0].actions)


def test_a_file_that_is_there_is_replaced_only_when_asked(few: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "mine.hdf5"
    output.write_text("hours of work")
    with pytest.raises(UserError, match="is there already"):
        collect("lift", 1, output, n_envs=1)
    assert output.read_text() == "hours of work"
    collect("lift", 1, output, n_envs=1, overwrite=True)
    assert len(read(output)) == 1
