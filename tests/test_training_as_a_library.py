"""Module, data and callbacks in a script of one's own, without the command line."""

import re
import runpy
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks.ema import EMA
from callbacks.non_finite import StopOnNonFinite
from callbacks.policy_export import PolicyExport
from common.errors import UserError
from lightning_modules import DiffusionBC
from policies import load_policy
from policies.networks import MLPNoiseNetwork, NoiseNetwork
from tests.training_toy import OBS_DIMS, ROOT, write_toy_dataset

DIMS = {"a": 2, "b": 1}
SMALL = partial(MLPNoiseNetwork, hidden_dims=[8], time_dim=4)


class DropoutNetwork(NoiseNetwork):
    """In training mode it gives something else each time."""

    def __init__(self, obs_dim: int, action_dim: int, pred_horizon: int, num_train_timesteps: int = 100) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(pred_horizon * action_dim + obs_dim, 16), nn.Dropout(0.5))
        self.last = nn.Linear(16, pred_horizon * action_dim)

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        features = self.layers(torch.cat([noisy_actions.flatten(1), obs], dim=-1))
        return self.last(features).view_as(noisy_actions)


def loader(scale: float = 1.0, samples: int = 24, batch_size: int = 8) -> DataLoader:
    """Random pairs; the ranges follow ``scale``."""
    generator = torch.Generator().manual_seed(0)
    obs = scale * torch.randn(samples, 3, generator=generator)
    actions = scale * (torch.rand(samples, 2, 4, generator=generator) - 0.5)
    return DataLoader(TensorDataset(obs, actions), batch_size)


def module(**options: Any) -> DiffusionBC:
    return DiffusionBC(DIMS, 4, 2, **({"network": SMALL} | options))


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    settings: dict[str, Any] = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    quiet: dict[str, Any] = {"enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return Trainer(callbacks=list(callbacks), **(settings | quiet | options))


def scripts() -> list[str]:
    section = (ROOT / "docs/training.md").read_text().split("## From a script")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_scripts_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_toy_dataset(tmp_path / "data/lift_ph.hdf5")
    with_data_module, with_loader = scripts()
    small = with_data_module.replace("max_epochs=100", "max_epochs=1, logger=False, enable_progress_bar=False")
    keys = f'task="lift", obs_keys={list(OBS_DIMS)}'
    (tmp_path / "script.py").write_text(small.replace('task="lift"', keys))
    found = runpy.run_path(str(tmp_path / "script.py"), run_name="__main__")
    saved, trained = load_policy(tmp_path / "lift.safetensors"), found["module"]
    assert (saved.spec.weights, saved.spec.train_step) == ("ema", found["trainer"].global_step)
    assert saved.spec.env_args == found["data"].env_args
    assert torch.equal(saved.obs_normalizer.low, found["data"].train_chunks.obs.amin(0))
    assert all(torch.equal(weight, saved.state_dict()[k]) for k, weight in trained.ema_policy.state_dict().items())
    quiet = "max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False, limit_train_batches=2"
    (tmp_path / "script.py").write_text(with_loader.replace("max_epochs=10", quiet))
    found = runpy.run_path(str(tmp_path / "script.py"), run_name="__main__")
    assert found["chunks"].shape == (8, 4, 7)
    assert torch.equal(found["module"].policy.obs_normalizer.high, found["obs"].amax(0))


def test_a_run_goes_on_with_a_plain_loader(tmp_path: Path) -> None:
    first = module(lr_schedule="constant")
    started = trainer(EMA(0.5))
    started.fit(first, loader())
    started.save_checkpoint(tmp_path / "one.ckpt")
    again = module(lr_schedule="constant")
    # Other data: what was restored holds, and is not fitted anew.
    trainer(EMA(0.5), max_epochs=2).fit(again, loader(scale=3), ckpt_path=tmp_path / "one.ckpt")
    assert torch.equal(again.policy.obs_normalizer.low, first.policy.obs_normalizer.low)
    loaded = DiffusionBC.load_from_checkpoint(tmp_path / "one.ckpt")
    assert (loaded.inference_policy.spec.weights, loaded.inference_policy.spec.train_step) == ("ema", 3)
    expected = first.ema_policy.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.ema_policy.state_dict().items())


def test_a_second_fit_on_other_data_keeps_the_normalisers() -> None:
    trained = module()
    trainer().fit(trained, loader())
    low = trained.policy.obs_normalizer.low.clone()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*beyond the range")
        trainer().fit(trained, loader())
        trainer().fit(trained, loader(scale=0.5))
    with pytest.warns(UserWarning, match="beyond the range"):
        trainer().fit(trained, loader(scale=2))
    for policy in (trained.policy, trained.ema_policy):
        assert torch.equal(policy.obs_normalizer.low, low)


def test_batches_of_other_shapes_are_refused_before_training() -> None:
    longer = DiffusionBC(DIMS, 4, 5, network=SMALL)
    with pytest.raises(UserError, match=r"shapes \[\(3,\), \(2, 4\)\], expected \[\(3,\), \(5, 4\)\]"):
        trainer().fit(longer, loader())


def test_a_loader_without_a_length() -> None:
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            while True:
                yield torch.zeros(3), torch.zeros(2, 4)

    endless = DataLoader(Endless(), 4)
    with pytest.raises(UserError, match="set_normalizers"):
        trainer(limit_train_batches=2, max_steps=2).fit(module(), endless)
    given = module()
    given.set_normalizers(-torch.ones(2, 3), torch.ones(2, 2, 4))
    trainer(limit_train_batches=2, max_steps=2).fit(given, endless)
    assert given.global_step == 2


def test_without_an_average_the_policy_that_is_rolled_out_drops_nothing_out() -> None:
    deployed: list[Tensor] = []

    class RollOut(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert isinstance(pl_module, DiffusionBC)
            policy = pl_module.inference_policy
            deployed.extend(policy.decode(torch.zeros(4, 3), torch.zeros(4, 2, 4)) for _ in range(2))
            assert pl_module.policy.training, "training goes on as it was"
            assert (policy.spec.weights, policy.spec.train_step) == ("raw", trainer.global_step)

    trainer(RollOut()).fit(module(network=DropoutNetwork), loader())
    assert torch.equal(*deployed)


def test_drawing_in_a_callback_goes_on_and_dropout_stays_reproducible() -> None:
    drawn: list[float] = []

    class Draw(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            drawn.append(float(torch.rand(())))

    weights = []
    for extra in ([], [Draw()]):
        torch.manual_seed(7)
        trained = module(network=DropoutNetwork)
        trainer(*extra, max_epochs=3).fit(trained, loader(), loader())
        weights.append(trained.policy.state_dict())
    assert len(set(drawn)) == 3
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_training_and_validation_do_not_share_their_noise() -> None:
    bc = module()
    with bc._draws("training", 3) as training:
        first = torch.randn(4, generator=training)
    with bc._draws("validation", 3) as validation:
        assert not torch.equal(torch.randn(4, generator=validation), first)
    with bc._draws("training", 3) as training:
        assert torch.equal(torch.randn(4, generator=training), first)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_a_precision_that_would_round_the_normalisers_is_refused(precision: Any) -> None:
    with pytest.raises(UserError, match="precision"):
        trainer(precision=precision).fit(module(), loader())


def test_clipping_of_scaled_gradients_is_refused_at_the_start() -> None:
    from lightning.pytorch.plugins import MixedPrecision

    fp16 = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(UserError, match="16-mixed"):
        trainer(plugins=fp16, gradient_clip_val=1.0, max_epochs=0).fit(module(), loader())


def test_a_loss_that_is_not_finite_keeps_the_batch_of_a_plain_loader(tmp_path: Path) -> None:
    bad = loader()
    assert isinstance(bad.dataset, TensorDataset)
    obs, actions = bad.dataset.tensors
    obs[9, 0] = torch.inf
    given = module()
    given.set_normalizers(-torch.ones(2, 3), torch.ones(2, 2, 4))
    with pytest.raises(UserError, match="batch 1 of it"):
        trainer(StopOnNonFinite(), default_root_dir=tmp_path).fit(given, bad)
    kept = torch.load(tmp_path / "non_finite.pt", weights_only=True)["batch"]
    assert torch.equal(kept[0], obs[8:16])
    assert torch.equal(kept[1], actions[8:16])


def test_the_policy_is_exported_where_it_was_asked_for(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    own = ModelCheckpoint(tmp_path / "own")
    trainer(own, PolicyExport(str(tmp_path / "run")), enable_checkpointing=True).fit(module(), loader())
    assert (tmp_path / "run/policy.safetensors").is_file()
    assert not (tmp_path / "own/policy.safetensors").exists()
