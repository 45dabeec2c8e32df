"""Every kind of file meets every command, on the installed robosuite: the table of docs/data.md, cell by cell.

The files are tiny, but recorded in the simulator. What works leaves the command's files behind; what does not ends in
the message that the table names.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.transform import Rotation

from cli import COMMANDS
from commands.front_door import run
from common.errors import UserError
from datamodules.demonstrations import Demonstration, by_key, write_dataset
from dsrl.prefill import read_transitions
from envs.installed import FOLDERS, header, installed_folder
from envs.rendering import choose_gl
from envs.robosuite_env import RobosuiteEnv
from envs.tasks import TASKS, default_env_args
from experts.collection import expert_class
from experts.manner import draw_manner
from policies import PolicySpec, load_policy
from tests.simulators import controllers
from tests.training_toy import ROOT
from tests.worker_threads import worker_threads

TABLE = yaml.safe_load((ROOT / "docs/results/files_and_commands.yaml").read_text())
RELEASES = {"robosuite141": "1.4.1", "robosuite15": "1.5.2"}
OURS = RELEASES[installed_folder()]
TASK_OF_KIND = {"paired": "can", "Tool Hang": "tool_hang", "Transport": "transport"}  # the others are of Lift


def expected(kind: str, command: str) -> str:
    """What the table says of the installed version."""
    row = TABLE["files"][kind]
    cells = row.get("both", row.get(OURS))
    return str(cells if isinstance(cells, str) else cells.get(command, cells["rest"]))


@cache
def simulation(task: str) -> RobosuiteEnv:
    return RobosuiteEnv(default_env_args(task), TASKS[task].obs_keys)


def recorded(task: str, seed: int, scripted: bool = True, steps_after: int = 0, at_most: int = 200) -> Demonstration:
    """An episode as the simulator gives it: the scripted expert's, up to some steps after its success, or random."""
    env, rng = simulation(task), np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    expert = expert_class(task)(env.obs_dims, draw_manner("proficient", rng), rng) if scripted else None
    observations, states = [env.observe()], []
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    while len(actions) < at_most and sum(rewards) <= steps_after:
        states.append(env.state())
        actions.append(rng.uniform(-1, 1, env.action_shape) if expert is None or any(rewards) else expert.act(obs))
        obs, reward, *_ = env.step(actions[-1])
        observations.append(env.observe())
        rewards.append(float(reward))
    values = np.array(observations)
    return Demonstration(
        actions=np.array(actions),
        states=np.array(states),
        rewards=np.array(rewards),
        dones=np.array(rewards, dtype=np.int64),
        obs=by_key(values[:-1], env.obs_dims),
        next_obs=by_key(values[1:], env.obs_dims),
        model_file=env.model_file(),
    )


@cache
def lift() -> list[Demonstration]:
    return [recorded("lift", seed) for seed in (0, 1)]


def split(**further: list[str]) -> dict[str, list[str]]:
    return {"train": ["demo_0"], "valid": ["demo_1"], **further}


def write_version(folder: str) -> Callable[[Path], None]:
    """A file of the installed version, or one that says it is of the other."""
    return lambda path: write_dataset(path, lift(), header(folder).env_args("Lift"), split())


def write_mh(path: Path) -> None:
    write_dataset(path, lift(), default_env_args("lift"), split(better=["demo_0"], worse=["demo_1"]))


def write_mg(path: Path, shaped: bool = False) -> None:
    demonstrations = [recorded("lift", 0, steps_after=6), recorded("lift", 1, scripted=False, at_most=12)]
    env_args = default_env_args("lift")
    if shaped:
        env_args["env_kwargs"]["reward_shaping"] = True
        reached = [demo.rewards + 0.1 * np.linspace(0.1, 1, len(demo)) for demo in demonstrations]
        pairs = zip(demonstrations, reached, strict=True)
        demonstrations = [dataclasses.replace(demo, rewards=rewards) for demo, rewards in pairs]
    write_dataset(path, demonstrations, env_args, split())


def write_paired(path: Path) -> None:
    episodes = [recorded("can", 0), recorded("can", 0, scripted=False, at_most=12)]
    write_dataset(path, episodes, default_env_args("can"), split(good=["demo_0"], bad=["demo_1"]))


def write_absolute(path: Path) -> None:
    env_args = default_env_args("lift")
    for controller in controllers(env_args):
        controller |= {"control_delta": False, "input_type": "absolute"}
    episodes = []
    for demo in lift():
        turns = Rotation.from_quat(demo.next_obs["robot0_eef_quat"]).as_rotvec()
        poses = np.hstack([demo.next_obs["robot0_eef_pos"], turns, demo.actions[:, 6:]])
        episodes.append(dataclasses.replace(demo, actions=poses))
    write_dataset(path, episodes, env_args, split())


def write_unscripted(task: str) -> Callable[[Path], None]:
    """Random steps; the last is said to succeed, as in every human demonstration."""

    def write(path: Path) -> None:
        episodes = []
        for seed in (0, 1):
            demo = recorded(task, seed, scripted=False, at_most=9)
            last = np.arange(len(demo)) == len(demo) - 1
            episodes.append(dataclasses.replace(demo, rewards=last.astype(float), dones=last.astype(np.int64)))
        write_dataset(path, episodes, default_env_args(task), split())

    return write


def write_raw(path: Path) -> None:
    """As robosuite's ``collect_human_demonstrations`` does."""
    env_args = default_env_args("lift")
    kept = {key: env_args["env_kwargs"][key] for key in ("robots", "controller_configs")}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env"], data.attrs["repository_version"] = "Lift", OURS
        data.attrs["env_info"] = json.dumps({"env_name": "Lift", **kept})
        for number, demo in enumerate(lift(), start=1):
            group = data.create_group(f"demo_{number}")
            group.attrs["model_file"] = demo.model_file
            group["states"], group["actions"] = demo.states, demo.actions


PLAYED: dict[tuple[str, str], str] = {}
WRITERS: dict[str, Callable[[Path], None]] = {
    "low_dim_v141.hdf5": write_version("robosuite141"),
    "low_dim_v15.hdf5": write_version("robosuite15"),
    "mh": write_mh,
    "mg, sparse rewards": write_mg,
    "mg, dense rewards": lambda path: write_mg(path, shaped=True),
    "paired": write_paired,
    "absolute actions": write_absolute,
    "Tool Hang": write_unscripted("tool_hang"),
    "Transport": write_unscripted("transport"),
    "raw recording": write_raw,
}


def likeness(spec: PolicySpec, command: str) -> str:
    """What ``command`` has to do with of a policy, its numbers apart. Pictures do not depend on controllers."""
    env_args = deepcopy(spec.env_args)
    assert env_args is not None
    env_args["env_kwargs"].pop("reward_shaping")  # no command reads robosuite's rewards
    known = [env_args["env_name"], env_args["env_version"]] if command == "record" else env_args
    return json.dumps([known, spec.obs_dims, spec.action_dim, spec.task], sort_keys=True)


class Kind:
    """A kind of file, and the policy that `fit` makes of it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.task = TASK_OF_KIND.get(name, "lift")
        self.file = folder / "data.hdf5"
        WRITERS[name](self.file)

    def fit_line(self, output: Path, **flags: object) -> list[str]:
        settings = {
            "dataset": self.file,
            "output": output,
            "data.batch_size": 4,
            "data.train_filter_key": "better" if self.name == "mh" else "train",
            "model.network.init_args.hidden_dims": "[8]",
            "model.warmup_steps": 0,
            "model.diffusion.ddim_steps": 2,
            "trainer.accelerator": "cpu",
            "trainer.max_steps": 2,
            "trainer.logger": "false",
            "trainer.enable_progress_bar": "false",
            "rollout.every_n_epochs": 0,
            "report": "false",
        }
        return ["fit", f"--config={ROOT}/configs/bc_{self.task}.yaml"] + [
            f"--{name}={value}" for name, value in (settings | flags).items()
        ]

    @property
    def policy(self) -> Path:
        return self.folder / "fit" / "policy.safetensors"

    def line(self, command: str) -> tuple[list[str], Path | None]:
        """A command's line, and what it leaves behind."""
        output = self.folder / command.replace(" ", "_")
        if command == "inspect":
            return ["inspect", f"--dataset={self.file}"], None
        if command == "fit":
            return self.fit_line(output), self.policy
        if command == "fit with rollouts":
            rollout = {"every_n_epochs": 1, "n_episodes": 1, "n_envs": 1, "horizon": 4, "film_strip": 0}
            flags = {f"rollout.{name}": value for name, value in rollout.items()}
            return self.fit_line(output, **flags), output / "policy.safetensors"
        policy = f"--{'bc_checkpoint' if command == 'dsrl' else 'checkpoint'}={self.policy}"
        if command == "evaluate":
            return [command, policy, "--n_episodes=1", "--horizon=4", "--n_envs=1"], None
        if command == "record":
            line = [command, policy, "--n_episodes=1", "--horizon=4", "--size=64", f"--output={output}"]
            return line, output / "ep01.mp4"
        if command == "dsrl":
            settings = {
                "task": self.task,
                "demonstrations.path": self.file,
                "demonstrations.n": 1,
                "demonstrations.fraction": 0.25,
                "ddim_steps": 2,
                "initial_steps": 4,
                "train_steps": 4,
                "utd": 1,
                "learner.hidden_sizes": "[8]",
                "learner.batch_size": 4,
                "env.n_envs": 1,
                "env.horizon": 4,
                "evaluation.every": 8,
                "evaluation.episodes": 1,
                "evaluation.report_episodes": 0,
                "log_formats": "[]",
                "output": output,
            }
            return [
                command,
                policy,
                *(f"--{name}={value}" for name, value in settings.items()),
            ], output / "sac_last.zip"
        converted = self.folder / "converted.hdf5"
        return [command, f"--input={self.file}", f"--output={converted}"], converted


def read_by_dsrl(kind: Kind, spec: PolicySpec) -> str:
    """`works`, or the name of the message."""
    try:
        read_transitions([kind.file], spec.obs_dims, (spec.pred_horizon, spec.action_dim), "per_chunk")
    except UserError as error:
        return next(name for name, words in TABLE["messages"].items() if words in str(error))
    return "works"


@pytest.fixture(scope="module", params=list(TABLE["files"]))
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    with worker_threads():
        yield Kind(request.param, tmp_path_factory.mktemp("kind"))


@pytest.mark.parametrize("command", TABLE["commands"])
@pytest.mark.filterwarnings("ignore")
def test_a_cell_of_the_table(kind: Kind, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "record" and choose_gl() is None:
        pytest.skip("neither EGL nor OSMesa is installed: nothing to render with")
    line, left = kind.line(command)
    says = expected(kind.name, command)
    if command in ("evaluate", "record", "dsrl") and kind.policy.exists():
        # A policy has nothing of its file but env_args, dimensions and numbers: the like are played once.
        spec = load_policy(kind.policy).spec
        like = (command, likeness(spec, command))
        if like in PLAYED:
            if command == "dsrl":  # which reads the file as well
                assert read_by_dsrl(kind, spec) == says
            else:
                assert PLAYED[like] == says
            return
        PLAYED[like] = says
    torch.manual_seed(0)
    status = run(COMMANDS, line)
    printed = capsys.readouterr()
    if says == "works":
        assert status in (0, None), printed.err
        assert left is None or left.stat().st_size > 0
    elif command in ("evaluate", "record", "dsrl") and not kind.policy.exists():
        assert expected(kind.name, "fit") == says, "no policy comes of such a file"
    else:
        assert status == 2
        assert TABLE["messages"][says] in re.sub(r"\s+", " ", printed.err)


def test_the_table_has_every_kind_of_file_and_both_versions() -> None:
    assert set(TABLE["files"]) == set(WRITERS)
    assert set(RELEASES) == set(FOLDERS.values())
    for row in TABLE["files"].values():
        for cells in [row["both"]] if "both" in row else [row[release] for release in RELEASES.values()]:
            said: dict[str, Any] = {"rest": cells} if isinstance(cells, str) else cells
            assert set(said) <= {*TABLE["commands"], "rest"}
            assert set(said.values()) <= {*TABLE["messages"], "works"}
