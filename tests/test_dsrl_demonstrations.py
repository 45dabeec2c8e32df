"""Demonstrations in DSRL's replay buffer: cut into chunks, given noise by the decoder, mixed into minibatches."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
import torch

from common.errors import UserError
from datamodules.conventions import check_sparse
from datamodules.demonstrations import Demonstration, write_dataset
from dsrl.config import DemonstrationsConfig
from dsrl.noise_space import NoiseScale
from dsrl.prefill import ChunkTransitions, find_noise, noise_of, read_transitions
from dsrl.trainer import Trainer
from rollouts.decoder import FrozenDecoder
from tests.dsrl_toy import ToyPolicy, ToyPool
from tests.test_dsrl_training import metrics, settings, trainer

DIMS = {"offset": 2, "clock": 1}
CHUNK = (2, 2)


def demonstration(length: int, success: int | None, seed: int) -> Demonstration:
    rng = np.random.default_rng(seed)
    rewards = np.zeros(length)
    if success is not None:
        rewards[success:] = 1.0
    obs = {"offset": rng.normal(size=(length, 2)), "clock": np.arange(length)[:, None] / 12}
    return Demonstration(rng.uniform(-0.3, 0.3, (length, 2)), obs, np.zeros((length, 1)), rewards, rewards.astype(int))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demonstrations") / "toy.hdf5"
    demos = [demonstration(7, 4, 0), demonstration(6, None, 1), demonstration(4, 3, 2), demonstration(8, 7, 3)]
    write_dataset(path, demos, {"env_name": "toy"}, {})
    return path


@pytest.mark.parametrize(
    ("reward", "expected"),
    [("per_chunk", [-1, -1, 0]), ("sparse", [0, 0, 1]), ("per_step", [-2, -2, 0])],
)
def test_demonstrations_are_cut_into_chunks_up_to_their_success(data: Path, reward: Any, expected: list[int]) -> None:
    cut = read_transitions([data], DIMS, CHUNK, reward, n=1)
    demo = demonstration(7, 4, 0)
    np.testing.assert_allclose(cut.obs[:, :2], demo.obs["offset"][[0, 2, 4]], rtol=1e-6)
    np.testing.assert_allclose(cut.next_obs[:2, :2], demo.obs["offset"][[2, 4]], rtol=1e-6)
    np.testing.assert_allclose(cut.chunks[1], demo.actions[2:4], rtol=1e-6)
    np.testing.assert_allclose(cut.chunks[2], demo.actions[[4, 4]], rtol=1e-6)  # success in the middle of the chunk
    assert cut.rewards.tolist() == expected
    assert cut.dones.tolist() == [False, False, True]


def test_cut_at_every_offset_each_cut_is_a_stream_of_its_own_up_to_the_success(data: Path) -> None:
    cut = read_transitions([data], DIMS, CHUNK, "per_chunk", n=1, every_offset=True)
    demo = demonstration(7, 4, 0)
    np.testing.assert_allclose(cut.obs[:, :2], demo.obs["offset"][[0, 2, 4, 1, 3]], rtol=1e-6)
    np.testing.assert_allclose(cut.next_obs[[0, 1, 3], :2], demo.obs["offset"][[2, 4, 3]], rtol=1e-6)
    np.testing.assert_allclose(cut.chunks[4], demo.actions[3:5], rtol=1e-6)
    assert cut.rewards.tolist() == [-1, -1, 0, -1, 0]
    assert cut.dones.tolist() == [False, False, True, False, True]


def test_a_demonstration_succeeding_within_its_first_chunk_has_fewer_cuts(tmp_path: Path) -> None:
    path = tmp_path / "quick.hdf5"
    write_dataset(path, [demonstration(4, 0, 0)], {"env_name": "toy"}, {})
    assert len(read_transitions([path], DIMS, CHUNK, "sparse", every_offset=True)) == 1


def test_a_demonstration_without_success_is_left_out(data: Path) -> None:
    assert len(read_transitions([data], DIMS, CHUNK, "sparse")) == 3 + 2 + 4


def test_n_counts_in_each_file(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.hdf5"
    write_dataset(other, [demonstration(9, 8, 5), demonstration(9, 8, 6)], {"env_name": "toy"}, {})
    with pytest.raises(UserError, match=r"99 demonstrations are asked for, and it holds \d+"):
        read_transitions([data], DIMS, CHUNK, "per_chunk", n=99)
    alone = [read_transitions([path], DIMS, CHUNK, "per_chunk", n=1) for path in (data, other)]
    both = read_transitions([data, other], DIMS, CHUNK, "per_chunk", n=1)
    for field in dataclasses.fields(both):
        parts = [getattr(part, field.name) for part in alone]
        np.testing.assert_array_equal(getattr(both, field.name), np.concatenate(parts))


def test_files_of_another_environment_are_refused(tmp_path: Path) -> None:
    env_args, other = (
        {"env_name": "toy", "env_version": "1", "env_kwargs": {"controller_configs": {"control_delta": delta}}}
        for delta in (True, False)
    )
    for name, each in (("own", env_args), ("other", other)):
        write_dataset(tmp_path / f"{name}.hdf5", [demonstration(6, 4, 1)], each, {})
    paths = [tmp_path / "own.hdf5", tmp_path / "other.hdf5"]
    with pytest.raises(UserError, match=r"other.hdf5 has controller_configs .*false.*, the policy .*true"):
        read_transitions(paths, DIMS, CHUNK, "per_chunk", env_args=env_args)
    assert len(read_transitions(paths[:1], DIMS, CHUNK, "per_chunk", env_args=env_args)) > 0


@pytest.mark.parametrize("path", ["", []])
def test_a_path_that_names_no_file_is_refused(path: str | list[str]) -> None:
    with pytest.raises(UserError, match="names no file"):
        DemonstrationsConfig(path)


def test_a_file_without_any_success_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "failed.hdf5", [demonstration(6, None, 1)], {"env_name": "toy"}, {})
    with pytest.raises(UserError, match=r"none of the 1 demonstrations taken .* reward above 0"):
        read_transitions([tmp_path / "failed.hdf5"], DIMS, CHUNK, "sparse")


def test_pieces_without_rewards_are_not_shaped(tmp_path: Path) -> None:
    check_sparse(tmp_path, {"env_kwargs": {"reward_shaping": True}}, [np.zeros(0), np.zeros(0)])


def test_shaped_rewards_are_refused(tmp_path: Path) -> None:
    shaped = dataclasses.replace(demonstration(7, 4, 0), rewards=np.linspace(0.01, 1, 7))
    write_dataset(tmp_path / "dense.hdf5", [shaped], {"env_name": "toy"}, {})
    with pytest.raises(UserError, match="its rewards are shaped"):
        read_transitions([tmp_path / "dense.hdf5"], DIMS, CHUNK, "sparse")


@pytest.mark.parametrize(("dims", "chunk"), [({**DIMS, "clock": 3}, CHUNK), (DIMS, (2, 7))], ids=["obs", "actions"])
def test_demonstrations_of_other_dimensions(data: Path, dims: dict[str, int], chunk: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"its dimensions are .* the policy has .* --demonstrations.path"):
        read_transitions([data], dims, chunk, "sparse")


def test_found_noise_decodes_to_the_chunk_or_says_how_far_off_it_stays() -> None:
    policy = ToyPolicy()
    obs, noise = torch.zeros(20, 3), torch.randn(20, 2, 2, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    chunks = policy.decode(obs, noise)
    chunks[0] = 1.0  # beyond what this decoder can produce within the bound
    start = noise + 0.3
    assert (policy.decode(obs, start) - chunks)[1:].pow(2).mean().sqrt() > 0.1, "descent has something to do"
    found, error = find_noise(policy.decode, start, obs, chunks, NoiseScale(2.5))
    assert error[1:].max() < 0.05
    assert error[0] > 0.1
    assert found.abs().max() <= 2.5
    torch.testing.assert_close(found[1:], noise[1:], atol=0.15, rtol=0)


def test_noise_is_looked_for_once_by_policy_chunks_and_bound(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, decoder, kept = read_transitions([data], DIMS, CHUNK, "sparse"), FrozenDecoder(ToyPolicy()), tmp_path / "noise"

    def noise(bound: float = 2.5, chunks: ChunkTransitions = cut, decoder: FrozenDecoder = decoder) -> np.ndarray:
        return noise_of(chunks, decoder, NoiseScale(bound), kept)

    def searches() -> int:
        return capsys.readouterr().out.count("looking for the noise")

    first = noise()
    assert searches() == 1
    np.testing.assert_array_equal(first, noise_of(cut, decoder, NoiseScale(2.5)))
    assert searches() == 1
    np.testing.assert_array_equal(noise(), first)
    said = capsys.readouterr().out
    assert "9 chunks, as found before; they decode to within" in said
    assert "looking for" not in said

    other = ToyPolicy()
    with torch.no_grad():
        next(iter(other.state_dict().values())).add_(0.1)
    noise(0.5)
    noise(chunks=dataclasses.replace(cut, chunks=cut.chunks * 0.5))
    noise(decoder=FrozenDecoder(other))
    assert searches() == 3
    assert len(list(kept.iterdir())) == 4

    for path in kept.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    np.testing.assert_array_equal(noise(), first)
    said = capsys.readouterr().out
    assert "is damaged: the noise of demonstrations is computed again" in said
    np.testing.assert_array_equal(noise(), first)
    assert searches() == 0


def test_noise_that_cannot_be_kept_costs_no_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noise").write_text("")  # where the folder would be
    config = settings("prior", train_steps=0)
    config.demonstrations = DemonstrationsConfig(str(data))
    Trainer(ToyPolicy(), cast(Any, ToyPool()), config, tmp_path / "run", kept_noise=tmp_path / "noise").run()
    said = capsys.readouterr().out
    assert "cannot be read, so the noise of demonstrations is computed again: Not a directory" in said
    assert "the noise of demonstrations is not kept for later runs: cannot write" in said


@pytest.mark.parametrize("fraction", [0.25, 0.0, 0.999, None])
def test_minibatches_hold_the_asked_share(data: Path, tmp_path: Path, fraction: float | None) -> None:
    config = settings("na", train_steps=0)
    config.demonstrations = DemonstrationsConfig(str(data), fraction=fraction)
    run = trainer(config, tmp_path)
    run.run()
    demonstrated = read_transitions([data], DIMS, CHUNK, "per_chunk").chunks.reshape(-1, 4)
    shares = []
    for _, actions, *_ in zip(*run.learner.batches(5, 64), strict=True):
        shares.append(int((actions.numpy()[:, None] == demonstrated[None]).all(axis=2).any(axis=1).sum()))
    if fraction is not None:
        assert shares == [min(round(64 * fraction), 63)] * 5  # the run's own transitions always have a part
        return
    # As often as one draw from both buffers would give them, also where a minibatch of 2 has less than half of one.
    fraction = len(demonstrated) / (run.learner.replay_buffer.size() * 2 + len(demonstrated))
    assert 0 < fraction < 1 / 4
    for size in (2, 64):
        drawn = [run.learner.demonstrated(size) for _ in range(2000)]
        assert np.mean(drawn) == pytest.approx(size * fraction, rel=0.2)


@pytest.mark.parametrize("algorithm", ["prior", "na"])
def test_a_run_with_demonstrations_resumes_exactly(data: Path, algorithm: str, tmp_path: Path) -> None:
    config = settings(algorithm, train_steps=200)
    config.demonstrations = DemonstrationsConfig(str(data), fraction=0.5)
    trainer(config, tmp_path / "whole").run()
    config.train_steps = 100
    trainer(config, tmp_path / "parts").run()
    config.train_steps = 200
    shutil.copy(data, tmp_path / "moved.hdf5")
    config.demonstrations.path = [str(tmp_path / "moved.hdf5")]
    trainer(config, tmp_path / "parts", resume=True).run()
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


def test_resume_refuses_files_in_another_order(data: Path, tmp_path: Path) -> None:
    path = str(shutil.copy(data, tmp_path / "data.hdf5"))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["source"] = "other content"
    config = settings(train_steps=0)
    config.demonstrations = DemonstrationsConfig([str(data), path])
    trainer(config, tmp_path / "run").run()
    trainer(config, tmp_path / "run", resume=True)
    config.demonstrations.path = [path, str(data)]
    with pytest.raises(UserError, match="was trained with other demonstrations"):
        trainer(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("other", ["other content", None])
def test_resume_refuses_other_demonstrations(data: Path, tmp_path: Path, other: str | None) -> None:
    path = shutil.copy(data, tmp_path / "data.hdf5")
    config = settings(train_steps=0)
    config.demonstrations = DemonstrationsConfig(str(path))
    trainer(config, tmp_path / "run").run()
    if other is None:
        config.demonstrations = DemonstrationsConfig()
    else:
        with h5py.File(path, "r+") as file:
            file["data"].attrs["source"] = other
    with pytest.raises(UserError, match="was trained with other demonstrations"):
        trainer(config, tmp_path / "run", resume=True)
