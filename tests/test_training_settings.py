"""Settings of Lightning that cannot work here end with one message; early stopping by success rate works."""

from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer

from callbacks.early_stopping import StopOnPlateau
from callbacks.rollout_success import METRIC, RolloutSuccess
from common.errors import UserError
from tests.test_training_as_a_library import loader, module, trainer
from tests.training_toy import ForkServer, fit_line, write_toy_dataset

EARLY_STOPPING = "--trainer.callbacks+=EarlyStopping"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5")


@pytest.mark.parametrize(
    ("words", "env", "named"),
    [
        ([EARLY_STOPPING, "--trainer.callbacks.monitor=rollout/success_rate"], {}, "StopOnPlateau"),
        ([EARLY_STOPPING, "--trainer.callbacks.monitor=val/los"], {}, "val/los"),
        ([EARLY_STOPPING, "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=least"], {}, "mode"),
        (["--trainer.callbacks+=callbacks.early_stopping.StopOnPlateau"], {}, "every_n_epochs"),
        ([], {"SLURM_NTASKS": "8"}, "ntasks"),
        (["--trainer.strategy=ddp_spawn", "--trainer.devices=2"], {}, "ddp_spawn"),
        (["--trainer.strategy=fsdp"], {}, "fsdp"),
        (["--trainer.precision=bf16-true"], {}, "trainer.precision"),
        (["--ema.decay=1.5"], {}, "ema.decay"),
        (["--trainer.accumulate_grad_batches=0"], {}, "accumulate_grad_batches"),
        (["--trainer.check_val_every_n_epoch=0"], {}, "check_val_every_n_epoch"),
        (["--model.network.init_args.hidden_dims=[8, 0]"], {}, "hidden_dims is [8, 0]"),
        (["--model.diffusion.ddim_steps=101"], {}, "ddim_steps"),
    ],
)
def test_a_setting_that_cannot_work_is_named(
    cli_server: ForkServer, data: Path, tmp_path: Path, words: list[str], env: dict[str, str], named: str
) -> None:
    status, errors = cli_server.run([*fit_line(tmp_path, data), *words], env)
    assert (status, "Traceback" in errors) == (2, False), errors
    assert named in errors, errors
    assert not (tmp_path / "policy.safetensors").exists()


class GivenRates(RolloutSuccess):
    """Logs rates that are given, where the simulator would find them."""

    def __init__(self, rates: list[float]) -> None:
        super().__init__(every_n_epochs=2)
        self.rates = iter(rates)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pass

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % 2 == 0:
            pl_module.log(METRIC, next(self.rates))
            self.step = trainer.global_step


@pytest.mark.parametrize(
    ("rates", "patience", "epochs"),
    [
        ([0.5, 0.5, 0.5, 0.9, 0.9, 0.9], 2, 6),  # the third rate, in the sixth epoch, is the second without a rise
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2, 12),
    ],
)
def test_a_run_ends_when_the_success_rate_no_longer_rises(rates: list[float], patience: int, epochs: int) -> None:
    run = trainer(StopOnPlateau(patience), GivenRates(rates), max_epochs=12)
    run.fit(module(), loader())
    assert run.current_epoch == epochs


def test_stopping_on_a_plateau_needs_rollouts() -> None:
    with pytest.raises(UserError, match="rollouts"):
        trainer(StopOnPlateau()).fit(module(), loader())
