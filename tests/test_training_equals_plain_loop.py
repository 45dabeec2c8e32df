"""What makes training fast changes nothing: `fit` ends where a plain loop with the same draws ends."""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.robomimic_datamodule import RobomimicDataModule
from policies import DiffusionPolicy, PolicySpec
from tests.training_toy import OBS_DIMS, ForkServer, fit_line, write_toy_dataset

SEED, EPOCHS, LR, DECAY = 3, 6, 1e-3, 0.9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5")


def plain_loop(start: Path, data: Path) -> tuple[DiffusionPolicy, DiffusionPolicy]:
    """Per-item access, stock optimiser, average parameter by parameter: the policy and its average."""
    spec = PolicySpec.from_dict(torch.load(start, weights_only=True)["policy_spec"], str(start))
    policy = DiffusionPolicy(spec)
    state = torch.load(start, weights_only=True)["state_dict"]
    policy.load_state_dict({k.removeprefix("policy."): v for k, v in state.items() if k.startswith("policy.")})
    average = copy.deepcopy(policy)
    module = RobomimicDataModule(str(data), "lift", list(OBS_DIMS))
    module.setup()
    windows = list(zip(module.train_chunks.obs, module.train_chunks.actions, strict=True))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LR, weight_decay=1e-6, foreach=False, fused=False)
    count, total = 0, EPOCHS * 8
    for epoch in range(EPOCHS):
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(SEED * 1_000_003 + epoch)).tolist()
        for first in range(0, len(windows), 8):
            for group in optimizer.param_groups:
                group["lr"] = LR * 0.5 * (1 + np.cos(np.pi * count / total))
            obs, actions = (
                torch.stack(part) for part in zip(*(windows[i] for i in order[first : first + 8]), strict=True)
            )
            entropy = int(np.random.SeedSequence((SEED, 0, count)).generate_state(1, np.uint64)[0] >> np.uint64(1))
            optimizer.zero_grad()
            policy.loss(obs, actions, torch.Generator().manual_seed(entropy)).backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0, foreach=False)
            optimizer.step()
            decay = min(DECAY, (1 + count) / (10 + count))
            with torch.no_grad():
                for mean, value in zip(average.parameters(), policy.parameters(), strict=True):
                    mean.copy_(decay * mean + (1 - decay) * value)
            count += 1
    return policy, average


def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Largest difference, in units of the largest weight."""
    return max(float((a[name] - b[name].detach()).abs().max() / b[name].detach().abs().max()) for name in b)


@pytest.mark.parametrize("compilation", ["off", "kernels", "cuda_graphs"])
def test_fit_ends_where_a_plain_loop_ends(compilation: str, cli_server: ForkServer, data: Path, tmp_path: Path) -> None:
    flags: dict[str, object] = {"model__lr": LR, "ema__decay": DECAY, "seed_everything": SEED}
    # Without a GPU cuda_graphs is compiled, but nothing is captured.
    flags |= {"trainer__max_epochs": EPOCHS, "model__compile_network": compilation}
    path = tmp_path / "start.ckpt"
    start = (
        "import torch, lightning_modules.diffusion_bc as m\n"
        + f"""
def on_train_start(self):
    from policies.storage import SPEC_KEY
    torch.save({{"state_dict": self.state_dict(), SPEC_KEY: self.policy.spec.to_dict()}}, {str(path)!r})
m.DiffusionBC.on_train_start = on_train_start
"""
    )
    status, errors = cli_server.run(fit_line(tmp_path, data, **flags), before=start)
    assert status == 0, errors
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    policy, average = plain_loop(path, data)
    before = torch.load(path, weights_only=True)["state_dict"]
    for prefix, expected in (("policy.", policy), ("ema_policy.", average)):
        found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        started = {k.removeprefix(prefix): v for k, v in before.items() if k.startswith(prefix)}
        weights = dict(expected.named_parameters())
        assert distance(found, weights) < 1e-4
        assert distance(started, weights) > 1e-2, "it moved by far more than the tolerance"
