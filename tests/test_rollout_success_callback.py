"""Success rate during training: what is rolled out, when, and what a crash leaves behind."""

from collections.abc import Iterator, Mapping, Sequence
from ctypes.util import find_library
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import rollout_success
from callbacks.checkpoints import BestCheckpoint
from callbacks.ema import EMA
from callbacks.policy_export import PolicyExport
from callbacks.progress import RunProgress
from callbacks.rollout_success import METRIC, SELECTION_SEED, RolloutSuccess
from common.errors import UserError
from datamodules.robomimic_datamodule import RobomimicDataModule
from envs.pool import EnvSpec, _start_worker
from envs.rendering import choose_gl
from envs.tasks import default_env_args
from lightning_modules import DiffusionBC
from policies import load_policy
from policies.networks import MLPNoiseNetwork
from rollouts.loop import EpisodeResult
from tests.training_toy import write_toy_dataset
from tests.worker_threads import worker_threads

LIFT_DIMS = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}


@pytest.fixture(autouse=True)
def simulated_here() -> Iterator[None]:
    with worker_threads():
        yield


class Run:
    """A module, its data and a trainer whose rollouts last a few steps."""

    def __init__(
        self,
        folder: Path,
        rollout: RolloutSuccess,
        epochs: int = 4,
        callbacks: Sequence[Callback] = (),
        keep: int = 3,
        limits: Mapping[str, Any] = MappingProxyType({}),
        **data: Any,
    ) -> None:
        seed_everything(0, verbose=False)
        self.data = RobomimicDataModule(str(write_toy_dataset(folder / "lift.hdf5", obs_dims=LIFT_DIMS)), **data)
        self.module = DiffusionBC(
            obs_dims=self.data.obs_dims,
            action_dim=7,
            pred_horizon=4,
            env_args=self.data.env_args,
            task=self.data.task,
            network=partial(MLPNoiseNetwork, hidden_dims=[16], time_dim=8),
        )
        self.logger = TensorBoardLogger(str(folder), name="run", default_hp_metric=False)
        best = str(folder / "best")
        self.trainer = Trainer(
            accelerator="cpu",
            logger=self.logger,
            num_sanity_val_steps=2,
            enable_progress_bar=any(isinstance(each, RunProgress) for each in callbacks),
            enable_model_summary=False,
            callbacks=[EMA(0.9), rollout, BestCheckpoint(best, keep), PolicyExport(best), *callbacks],
            **{"max_epochs": epochs, **limits},
        )

    def fit(self) -> None:
        self.trainer.fit(self.module, self.data)

    def scalars(self, tag: str) -> list[tuple[int, float]]:
        reader = EventAccumulator(self.logger.log_dir)
        reader.Reload()
        return [(point.step, point.value) for point in reader.Scalars(tag)]


def test_rolls_out_every_n_epochs_and_leaves_the_best_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout = RolloutSuccess(every_n_epochs=2, n_episodes=3, n_envs=2, horizon=8)
    run = Run(tmp_path, rollout, callbacks=[RunProgress()])
    run.fit()
    shown = capsys.readouterr().err.split("\r")
    assert sum("fit, rollout 2/3" in line for line in shown) == 2, "the bar says what takes so long"
    assert shown[-1].startswith("fit: 100%")
    steps_per_epoch = run.trainer.num_training_batches
    logged = run.scalars(METRIC)
    assert [step for step, _ in logged] == [2 * steps_per_epoch - 1, 4 * steps_per_epoch - 1]  # not in the sanity check
    assert [value for _, value in run.scalars("rollout/episode_length")] == [8, 8]
    assert len(list((tmp_path / "best").glob("epoch*.ckpt"))) == 2
    exported = load_policy(tmp_path / "best/policy.safetensors")
    assert exported.spec.weights == "ema"
    assert exported.spec.env_args == default_env_args("lift")


class NoSimulator:
    """In the place of the pool, where the question is when rollouts take place."""

    obs_dims, action_dim = LIFT_DIMS, 7

    def __init__(
        self, spec: EnvSpec, n_envs: int | None = None, n_workers: int | None = None, episodes: int | None = None
    ) -> None:
        pass

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def rolled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts succeed at once."""

    def outcome(agent: Any, pool: Any, seed: int, indices: Any, **rest: Any) -> list[EpisodeResult]:
        return [EpisodeResult(i, i, True, 10, 1.0) for i in indices]

    monkeypatch.setattr(rollout_success, "EnvPool", NoSimulator)
    monkeypatch.setattr(rollout_success, "run_episodes", outcome)


@pytest.mark.usefixtures("rolled_out")
@pytest.mark.parametrize(
    ("limits", "callbacks", "measured"),
    [
        ({"max_epochs": 3}, [], [2, 3]),
        ({"max_epochs": 1}, [], [1]),
        ({"max_epochs": -1, "max_steps": 5}, [], [2, 2.5]),
        # Decides at the end of the first epoch, when callbacks that watch nothing have had their turn.
        ({}, [EarlyStopping("train/loss", divergence_threshold=-1.0, check_on_train_epoch_end=True)], [1]),
    ],
    ids=["max_epochs", "short", "max_steps", "early_stopping"],
)
def test_the_last_weights_are_rolled_out_and_ranked(
    tmp_path: Path, limits: dict[str, Any], callbacks: list[Callback], measured: list[float]
) -> None:
    rollout = RolloutSuccess(every_n_epochs=2, n_episodes=1, n_envs=1, horizon=4)
    run = Run(tmp_path, rollout, callbacks=callbacks, limits={**limits, "limit_train_batches": 2}, batch_size=8)
    run.fit()
    assert [(step + 1) / 2 for step, _ in run.scalars(METRIC)] == measured
    assert len(list((tmp_path / "best").glob("epoch*.ckpt"))) == len(measured)
    assert load_policy(tmp_path / "best/policy.safetensors").spec.train_step == 2 * measured[-1]


@pytest.mark.parametrize(
    ("every_n_epochs", "val_filter_key", "limits", "told"),
    [
        (0, None, {}, True),
        (0, "valid", {"check_val_every_n_epoch": 2}, True),
        (0, "valid", {}, False),
        (9, None, {}, False),  # at the last epoch
    ],
)
@pytest.mark.usefixtures("rolled_out")
def test_a_run_in_which_nothing_is_measured_says_so(
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    every_n_epochs: int,
    val_filter_key: str | None,
    limits: dict[str, Any],
    told: bool,
) -> None:
    rollout = RolloutSuccess(every_n_epochs, n_episodes=1, n_envs=1, horizon=4)
    Run(tmp_path, rollout, epochs=1, limits=limits, val_filter_key=val_filter_key).fit()
    assert any("nothing will be measured" in str(warning.message) for warning in recwarn) == told


def test_rolls_out_the_average_not_the_raw_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Spy(rollout_success.DiffusionAgent):
        def __init__(self, policy: Any, **kwargs: Any) -> None:
            seen.append(policy)
            super().__init__(policy, **kwargs)

    monkeypatch.setattr(rollout_success, "DiffusionAgent", Spy)
    run = Run(tmp_path, RolloutSuccess(every_n_epochs=1, n_episodes=1, n_envs=1, horizon=4), epochs=1)
    run.fit()
    assert [policy is run.module.ema_policy for policy in seen] == [True]
    raw, average = (next(p.parameters()) for p in (run.module.policy, run.module.ema_policy))
    assert not torch.equal(raw, average)


def test_crash_in_a_rollout_leaves_the_weights_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[dict[str, torch.Tensor]] = []

    def crash(*args: Any, **kwargs: Any) -> list[EpisodeResult]:
        weights.append({name: tensor.clone() for name, tensor in run.module.state_dict().items()})
        raise RuntimeError("the simulator exploded")

    monkeypatch.setattr(rollout_success, "run_episodes", crash)
    run = Run(tmp_path, RolloutSuccess(every_n_epochs=1, n_episodes=1, n_envs=1, horizon=4))
    with pytest.raises(RuntimeError, match="exploded"):
        run.fit()
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in run.module.state_dict().items())


def test_success_is_the_share_of_successful_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(agent: Any, pool: Any, seed: int, indices: Any, **rest: Any) -> list[EpisodeResult]:
        assert seed == SELECTION_SEED
        return [EpisodeResult(i, i, success=i < 2, length=10 + i, total_reward=float(i < 2)) for i in indices]

    monkeypatch.setattr(rollout_success, "run_episodes", outcome)
    run = Run(tmp_path, RolloutSuccess(every_n_epochs=1, n_episodes=5, n_envs=1, horizon=4), epochs=1)
    run.fit()
    assert run.scalars(METRIC)[0][1] == pytest.approx(0.4)
    assert run.scalars("rollout/episode_length")[0][1] == 12
    assert run.scalars("rollout/return")[0][1] == pytest.approx(0.4)


@pytest.mark.skipif(choose_gl() is None, reason="neither EGL nor OSMesa is installed: nothing to render with")
def test_film_strip_shows_an_episode_in_tensorboard_be_it_the_second_logger(tmp_path: Path) -> None:
    rollout = RolloutSuccess(every_n_epochs=1, n_episodes=1, n_envs=1, horizon=10, film_strip=3)
    run = Run(tmp_path, rollout, epochs=1)
    run.trainer.loggers = [CSVLogger(str(tmp_path)), run.logger]  # type: ignore[method-assign]
    run.fit()
    reader = EventAccumulator(run.logger.log_dir)
    reader.Reload()
    image = reader.Images("rollout/episode_0")[0]
    assert (image.width, image.height) == (3 * 128, 128)


@pytest.mark.skipif(not find_library("EGL"), reason="EGL is not installed")
def test_training_goes_on_without_a_film_strip_where_rendering_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envs.pool._start_worker", _start_worker)  # a fresh one reads MUJOCO_* anew
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")  # installed, and no such device
    rollout = RolloutSuccess(every_n_epochs=1, n_episodes=1, n_envs=1, horizon=4, film_strip=3)
    run = Run(tmp_path, rollout, epochs=2)
    with pytest.warns(UserWarning, match="no film strip in TensorBoard: rendering by egl is installed and") as caught:
        run.fit()
    assert sum("no film strip" in str(warning.message) for warning in caught) == 1
    assert len(run.scalars(METRIC)) == 2


@pytest.mark.parametrize(("keep", "kept"), [(3, (2, 3, 4)), (-1, range(6))])
def test_of_equally_good_checkpoints_the_latest_are_kept_and_exported(
    keep: int, kept: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = [0.5, 1.0, 1.0, 1.0, 1.0, 0.5]

    def outcome(agent: Any, pool: Any, seed: int, indices: Any, **rest: Any) -> list[EpisodeResult]:
        rate = rates[run.trainer.current_epoch]
        return [EpisodeResult(i, i, i < 2 * rate, 10, 0.0) for i in indices]

    monkeypatch.setattr(rollout_success, "run_episodes", outcome)
    left = tmp_path / "best/epoch0003-success1.000.ckpt"  # by a run that was killed, and begins again before it
    left.parent.mkdir()
    left.touch()
    run = Run(tmp_path, RolloutSuccess(every_n_epochs=1, n_episodes=2, n_envs=1, horizon=4), epochs=6, keep=keep)
    run.fit()
    names = sorted(path.name for path in (tmp_path / "best").glob("*.ckpt"))
    assert names == [f"epoch000{epoch}-success{rates[epoch]:.3f}.ckpt" for epoch in kept]
    assert left.stat().st_size
    assert load_policy(tmp_path / "best/policy.safetensors").spec.train_step == 5 * run.trainer.num_training_batches


@pytest.mark.parametrize(("keep", "kept"), [(2, (3, 4)), (1, (4,)), (0, (0, 1, 2))])
def test_a_run_that_goes_on_with_fewer_best_checkpoints_removes_the_others(
    keep: int, kept: Sequence[int], tmp_path: Path
) -> None:
    run = Run(tmp_path, RolloutSuccess(every_n_epochs=1, n_episodes=1, n_envs=1, horizon=4), epochs=3, keep=-1)
    run.fit()
    run.trainer.save_checkpoint(tmp_path / "last.ckpt")
    there = []

    class Count(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            there.append(len(list((tmp_path / "best").glob("*.ckpt"))))

    rollout = RolloutSuccess(every_n_epochs=1, n_episodes=1, n_envs=1, horizon=4)
    more = Run(tmp_path, rollout, epochs=5, callbacks=[Count()], keep=keep)
    more.trainer.fit(more.module, more.data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    names = sorted(path.name for path in (tmp_path / "best").glob("*.ckpt"))
    assert names == [f"epoch000{epoch}-success0.000.ckpt" for epoch in kept]
    assert there == [3, len(kept)], "removed with the first that is saved"


def test_the_checkpoint_that_a_run_goes_on_from_stays_by_whichever_way_it_is_named(tmp_path: Path) -> None:
    def fit(epochs: int, keep: int, ckpt_path: Path | None) -> list[str]:
        rollout = RolloutSuccess(every_n_epochs=1, n_episodes=1, n_envs=1, horizon=4)
        run = Run(tmp_path, rollout, epochs=epochs, keep=keep)
        run.trainer.fit(run.module, run.data, ckpt_path=ckpt_path, weights_only=True)
        return sorted(path.name[:9] for path in (tmp_path / "best").glob("*.ckpt"))

    assert fit(2, -1, None) == ["epoch0000", "epoch0001"]
    (tmp_path / "link").symlink_to(tmp_path / "best")
    begun = next((tmp_path / "link").glob("epoch0001*"))
    assert fit(4, 1, begun) == ["epoch0001", "epoch0003"]


def record_of(folder: Path, rates: tuple[float, ...]) -> dict[str, Any]:
    """State of a ``BestCheckpoint`` in ``folder`` that has saved a file for each of ``rates``, the lowest first."""
    best = BestCheckpoint(str(folder))
    folder.mkdir(exist_ok=True)
    for rate in rates:
        path = folder / f"{rate}.ckpt"
        path.touch()
        best.best_k_models[str(path)] = torch.tensor(rate)
    best.kth_best_model_path = str(folder / f"{rates[0]}.ckpt")
    return best.state_dict()


def test_the_record_of_the_best_survives_a_kill(tmp_path: Path) -> None:
    state = record_of(tmp_path, (0.5, 0.75, 1.0))
    (tmp_path / "1.0.ckpt").unlink()  # replaced after the state was saved
    again = BestCheckpoint(str(tmp_path))
    again.load_state_dict(state)
    assert list(again.best_k_models) == [str(tmp_path / name) for name in ("0.5.ckpt", "0.75.ckpt")]
    assert again.kth_best_model_path == str(tmp_path / "0.5.ckpt")
    assert again.latest_best_path == str(tmp_path / "0.75.ckpt")


def test_a_run_that_was_moved_knows_its_best(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    state = record_of(tmp_path / "old", (0.5, 0.75))
    (tmp_path / "old").rename(tmp_path / "new")
    again = BestCheckpoint(str(tmp_path / "new"), keep=2)
    again.load_state_dict(state)
    assert not recwarn
    assert again.latest_best_path == str(tmp_path / "new/0.75.ckpt")
    assert again.kth_best_model_path == str(tmp_path / "new/0.5.ckpt")


def test_a_run_that_goes_on_elsewhere_says_that_it_leaves_its_best_behind(tmp_path: Path) -> None:
    state = record_of(tmp_path / "old", (0.5, 0.75))
    elsewhere = BestCheckpoint(str(tmp_path / "elsewhere"))
    with pytest.warns(UserWarning, match=f"none of the run's 2 best checkpoints is in {tmp_path / 'elsewhere'}"):
        elsewhere.load_state_dict(state)
    assert elsewhere.latest_best_path is None


def test_task_that_contradicts_the_file_is_refused_before_training(tmp_path: Path) -> None:
    run = Run(tmp_path, RolloutSuccess(every_n_epochs=1, n_episodes=1), task="can")
    with pytest.raises(UserError, match=r"'can' \(PickPlaceCan\), but the policy's data are of Lift"):
        run.fit()


def test_film_strip_takes_evenly_spaced_frames() -> None:
    frames = [np.full((2, 3, 3), i, np.uint8) for i in range(9)]
    strip = rollout_success._film_strip(EpisodeResult(0, 0, True, 9, 1.0, frames=frames), 3)
    assert strip.shape == (2, 9, 3)
    assert [strip[0, column, 0] for column in (0, 3, 6)] == [0, 4, 8]
