"""Whatever happened to a file or a flag: success or one clean error; no other exception, hang or half an output."""

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from callbacks.checkpoint_io import SafeCheckpointIO
from common.errors import UserError
from common.lock import LOCK_FILE
from datamodules.robomimic_datamodule import RobomimicDataModule
from policies import DiffusionConfig, DiffusionPolicy, NetworkConfig, PolicySpec, load_policy
from tests.hdf5_problems import problems
from tests.training_toy import OBS_DIMS, ForkServer, fit_line, write_toy_dataset

SECONDS = 60


def fuzz(examples: int) -> settings:
    """The same examples each time; FUZZ=20 multiplies them and draws new ones."""
    factor = int(os.environ.get("FUZZ", "1"))
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=examples * factor,
        derandomize=factor == 1,
        database=None,
        deadline=None,
        suppress_health_check=checks,
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def in_a_child(action: Callable[[], object]) -> None:
    """Run in a fork that may crash or hang: it must end by itself, with success or ``UserError``."""
    pid = os.fork()
    if pid == 0:
        status = 1
        signal.alarm(SECONDS)
        with contextlib.suppress(UserError):
            try:
                action()
            except UserError:
                raise
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def damage_bytes(path: Path, changes: list[tuple[float, int]], keep: float) -> None:
    """Overwrite bytes at relative positions, then cut the file to a fraction of its length."""
    content = bytearray(path.read_bytes())
    for where, value in changes:
        content[int(where * (len(content) - 1))] = value
    path.write_bytes(content[: max(1, int(keep * len(content)))])


damages = st.tuples(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20),
    st.sampled_from([1.0, 1.0, 1.0, 0.99, 0.5, 0.01]),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("toy") / "toy.hdf5", lengths=(9, 6, 5))


def use_dataset(path: Path) -> None:
    problems(path)
    RobomimicDataModule(str(path), "lift", list(OBS_DIMS)).setup()


@fuzz(40)
@given(damage=damages)
def test_bytes_of_a_data_set(toy: Path, damage: tuple[list[tuple[float, int]], float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.hdf5"
        shutil.copy(toy, path)
        damage_bytes(path, *damage)
        in_a_child(lambda: use_dataset(path))


PLACES = [
    "data",
    "mask",
    "mask/train",
    "data/demo_0",
    "data/demo_1/actions",
    "data/demo_0/obs",
    "data/demo_0/obs/object",
    "data/demo_0/next_obs/object",
    "data/demo_2/rewards",
    "data/demo_0/states",
]
arrays = st.builds(
    lambda shape, kind: np.zeros(shape, dtype=kind),
    st.lists(st.integers(0, 7), max_size=4),
    st.sampled_from(["f4", "f8", "i8", "u1", "?", "S3", "c16", "f2"]),
)


@fuzz(60)
@given(
    edits=st.lists(st.tuples(st.sampled_from(PLACES), st.none() | arrays | st.just("group")), min_size=1, max_size=3),
    env_args=json_values | st.binary(max_size=8).filter(lambda value: b"\0" not in value),
)
@example(edits=[("mask/train", np.zeros((), "S3"))], env_args={"env_name": "Lift"})
def test_structure_of_a_data_set(toy: Path, edits: list[tuple[str, Any]], env_args: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.hdf5"
        shutil.copy(toy, path)
        with h5py.File(path, "r+") as file:
            if "data" in file:
                value = np.bytes_(env_args) if isinstance(env_args, bytes) else json.dumps(env_args)
                file["data"].attrs["env_args"] = value
            for place, value in edits:
                parent, _, name = place.rpartition("/")
                holder = file.get(parent) if parent else file
                if not isinstance(holder, h5py.Group):
                    continue
                if name in holder:
                    del holder[name]
                if isinstance(value, str):
                    holder.create_group(name)
                elif value is not None:
                    holder[name] = value
        with contextlib.suppress(UserError):
            use_dataset(path)


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = NetworkConfig(init_args={"hidden_dims": [8], "time_dim": 4})
    spec = PolicySpec({"object": 2}, 2, 2, network, DiffusionConfig(), {"env_name": "Lift"}, "lift")
    path = tmp_path_factory.mktemp("policy") / "p.safetensors"
    DiffusionPolicy(spec).save(path)
    return path


def use_policy(path: Path) -> None:
    policy = load_policy(path)
    with torch.no_grad():
        chunk = policy.sample(torch.zeros(1, policy.spec.obs_dim), ddim_steps=1)
    assert chunk.shape == (1, *policy.chunk_shape)


@fuzz(80)
@given(damage=damages)
def test_bytes_of_a_policy(policy_file: Path, damage: tuple[list[tuple[float, int]], float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.safetensors"
        shutil.copy(policy_file, path)
        damage_bytes(path, *damage)
        with contextlib.suppress(UserError):
            use_policy(path)


SPEC_PLACES = [
    ("obs_dims",),
    ("obs_dims", "object"),
    ("action_dim",),
    ("pred_horizon",),
    ("network",),
    ("network", "class_path"),
    ("network", "init_args"),
    ("network", "init_args", "hidden_dims"),
    ("network", "init_args", "time_dim"),
    ("diffusion",),
    ("diffusion", "num_train_timesteps"),
    ("diffusion", "ddim_steps"),
    ("diffusion", "spacing"),
    ("diffusion", "clip_sample"),
    ("env_args",),
    ("task",),
    ("weights",),
    ("train_step",),
    ("data_sha256",),
    ("format_version",),
    ("surprise",),
]


@fuzz(200)
@given(place=st.sampled_from(SPEC_PLACES), value=json_values)
@example(place=("network", "init_args", "hidden_dims"), value=[0])
@example(place=("network", "init_args", "hidden_dims"), value=[-3])
@example(place=("network", "init_args", "hidden_dims"), value=["8"])
@example(place=("network", "init_args", "time_dim"), value=3)
@example(place=("network", "init_args", "time_dim"), value=1e300)
@example(place=("diffusion", "num_train_timesteps"), value=True)
@example(place=("diffusion", "num_train_timesteps"), value=1)
def test_description_of_a_policy(policy_file: Path, place: tuple[str, ...], value: Any) -> None:
    values = load_policy(policy_file).spec.to_dict()
    holder = values
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.safetensors"
        save_file(load_file(policy_file), path, metadata={"policy": json.dumps(values)})
        with contextlib.suppress(UserError):
            use_policy(path)


@pytest.fixture(scope="module")
def checkpoint(cli_server: ForkServer, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    status, errors = cli_server.run(fit_line(folder, toy, trainer__max_epochs=1))
    assert status == 0, errors
    return folder / "last.ckpt"


@fuzz(60)
@given(damage=damages)
def test_bytes_of_a_checkpoint(checkpoint: Path, damage: tuple[list[tuple[float, int]], float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.ckpt"
        shutil.copy(checkpoint, path)
        damage_bytes(path, *damage)
        for use in (use_policy, SafeCheckpointIO().load_checkpoint):
            with contextlib.suppress(UserError):
                use(path)


@fuzz(60)
@given(
    key=st.sampled_from(["state_dict", "policy_spec", "epoch", "loops", "callbacks", "global_step"]), value=json_values
)
def test_content_of_a_checkpoint(checkpoint: Path, key: str, value: Any) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content[key] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.ckpt"
        torch.save(content, path)
        for use in (use_policy, SafeCheckpointIO().load_checkpoint):
            with contextlib.suppress(UserError):
                use(path)


FLAGS = [
    "data__obs_keys",
    "data__pred_horizon",
    "data__batch_size",
    "data__train_filter_key",
    "data__pad_end",
    "data__task",
    "data__path",
    "model__network",
    "model__network__init_args__hidden_dims",
    "model__network__init_args__time_dim",
    "model__diffusion__num_train_timesteps",
    "model__diffusion__ddim_steps",
    "model__lr",
    "model__weight_decay",
    "model__lr_schedule",
    "model__warmup_steps",
    "trainer__gradient_clip_val",
    "trainer__limit_train_batches",
    "trainer__precision",
    "ema__decay",
    "best__keep",
    "last__every_n_epochs",
    "seed_everything",
    "ckpt_path",
]
words = st.sampled_from(
    ["0", "-1", "1", "2.5", "nan", "inf", "true", "null", "[]", "[0]", "{}", "x", "", "1e9", "[8, -1]"]
)


@fuzz(25)
@given(flag=st.sampled_from(FLAGS), value=words)
@example(flag="model__lr", value="nan")
@example(flag="model__lr", value="-1")
@example(flag="seed_everything", value="-1")
@example(flag="seed_everything", value="false")
@example(flag="model__warmup_steps", value="-1")
@example(flag="best__keep", value="-7")
@example(flag="last__every_n_epochs", value="-1")
@example(flag="trainer__limit_train_batches", value="0")
@example(flag="trainer__precision", value="16-mixed")
def test_flags(cli_server: ForkServer, toy: Path, flag: str, value: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        line = fit_line(Path(folder), toy, **{"trainer__max_epochs": 1, flag: value})
        limit = f"import signal; signal.alarm({SECONDS})"
        status, errors = cli_server.run(line, before=limit)
        assert status in (0, 2), f"{flag}={value}: {errors}"
        assert "Traceback" not in errors
        assert (status == 2) == ("error: " in errors)
        left = {path.name for path in Path(folder).glob(".*")}
        assert left <= {LOCK_FILE}, "no half-written file"
