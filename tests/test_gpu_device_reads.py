"""What runs at every step neither reads the device nor mixes devices, found without a GPU.

On PyTorch's meta device a tensor has a shape and no values: reading one on the host, copying one to the host or
combining it with a tensor of the host raises, wherever a GPU would be waited for or would refuse.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stable_baselines3.common import base_class, buffers
from stable_baselines3.common import policies as sb3_policies
from torch.optim import optimizer as optimizer_module
from torch.utils import _foreach_utils

from benchmarks.dsrl_updates import fill, make_fast
from callbacks.ema import EMA
from callbacks.non_finite import StopOnNonFinite
from datamodules.batches import TensorBatches
from lightning_modules import DiffusionBC
from tests.training_toy import ACTION_DIM, OBS_DIMS

META = torch.device("meta")
OBS_DIM, HORIZON, BATCH = sum(OBS_DIMS.values()), 4, 8


@pytest.fixture(autouse=True)
def generators_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no generator, as nothing is drawn there; and the fused optimisers' kernels, but unlisted."""
    monkeypatch.setattr(torch, "Generator", lambda device=None, original=torch.Generator: original())
    for name in ("randn", "randint"):
        original = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *args, _f=original, generator=None, **kw: _f(*args, **kw))
    supported = [*_foreach_utils._get_fused_kernels_supported_devices(), "meta"]
    monkeypatch.setattr(optimizer_module, "_get_fused_kernels_supported_devices", lambda: supported)


def module_on_the_device() -> DiffusionBC:
    module = DiffusionBC(OBS_DIMS, ACTION_DIM, HORIZON)
    module.policy.decode(torch.zeros(1, OBS_DIM), torch.zeros(1, HORIZON, ACTION_DIM), 5)  # makes its plan, once
    return module.to(META)


@pytest.mark.parametrize(
    "read",
    [
        lambda tensor: float(tensor[0]),
        lambda tensor: tensor.cpu(),
        lambda tensor: tensor.tolist(),
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor + torch.ones(3),
        lambda tensor: tensor @ torch.ones(3),
    ],
)
def test_the_meta_device_refuses_reads_and_mixed_devices(read: Any) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        read(torch.ones(3, device=META))


def test_a_training_step_stays_on_the_device() -> None:
    module = module_on_the_device()
    trainer: Any = SimpleNamespace(global_step=0, world_size=1, current_epoch=0, precision="32-true")
    trainer.fit_loop = SimpleNamespace(batch_idx=0, total_batch_idx=0)
    module._trainer = trainer
    average, watch = EMA(), StopOnNonFinite()
    module.ema_updates = torch.zeros((), dtype=torch.long)  # read once, before the first step
    average.on_train_start(trainer, module)
    module.ema_updates = module.ema_updates.to(META)
    tensors = (torch.zeros(20, OBS_DIM, device=META), torch.zeros(20, HORIZON, ACTION_DIM, device=META))
    optimizer = torch.optim.AdamW(module.policy.parameters(), fused=True)
    for step, batch in enumerate(TensorBatches(tensors, BATCH, shuffle=True)):
        loss = module.policy.loss(batch[0], batch[1])
        watch.on_before_backward(trainer, module, loss)
        loss.backward()
        module.configure_gradient_clipping(optimizer, 1.0, "norm")
        optimizer.step()
        trainer.global_step = step + 1
        average.on_train_batch_end(trainer, module, None, None, step)
    assert trainer.global_step == 3


def test_decoding_stays_on_the_device() -> None:
    policy = module_on_the_device().policy
    obs, noise = torch.zeros(3, OBS_DIM, device=META), torch.zeros(3, HORIZON, ACTION_DIM, device=META)
    assert policy.decode(obs, noise, ddim_steps=5).device == META


def test_an_update_of_the_steering_learner_stays_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (base_class, buffers, sb3_policies):
        monkeypatch.setattr(module, "get_device", lambda device: META)
    learner = make_fast(5, 6, [16], "auto_0.2", device="cuda")
    fill(learner.replay_buffer, 32)
    learner.train(gradient_steps=3, batch_size=BATCH)
    assert next(learner.policy.parameters()).device == META
