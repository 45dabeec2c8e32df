"""The networks of benchmarks/screened_networks.py against torch's own layers, and as networks of a policy."""

import pytest
import torch
from torch import nn

from benchmarks.screened_networks import _Conv, _GroupNorm
from policies import NetworkConfig

MODULE = "benchmarks.screened_networks"


@pytest.mark.parametrize("stride", [1, 2])
def test_the_convolution_is_torchs(stride: int) -> None:
    ours, theirs = _Conv(6, 10, stride), nn.Conv1d(6, 10, 3, stride, padding=1)
    with torch.no_grad():
        theirs.weight.copy_(ours.linear.weight.view(10, 3, 6).transpose(1, 2))
        assert theirs.bias is not None
        theirs.bias.copy_(ours.linear.bias)
    x = torch.randn(4, 8, 6)
    torch.testing.assert_close(ours(x), theirs(x.mT).mT)


def test_the_normalisation_is_torchs() -> None:
    x = 3 * torch.randn(4, 8, 32) + 1
    torch.testing.assert_close(_GroupNorm(32)(x), nn.GroupNorm(8, 32)(x.mT).mT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["SmallUNet", "TwoKinds"])
def test_each_part_of_a_prediction_hears_noise_time_and_observation(name: str) -> None:
    torch.manual_seed(0)
    network = NetworkConfig(f"{MODULE}.{name}").build(obs_dim=5, action_dim=7, pred_horizon=8, num_train_timesteps=100)
    noisy, timestep, obs = torch.randn(2, 8, 7), torch.tensor([3, 3]), torch.randn(2, 5)
    predicted = network.eval()(noisy, timestep, obs)
    assert predicted.shape == noisy.shape
    for other in ((noisy + 1, timestep, obs), (noisy, timestep + 50, obs), (noisy, timestep, obs + 1)):
        assert ((network(*other) - predicted).abs() > 1e-6).all(), "every component changes"


def test_two_kinds_train_on_rows_of_their_own_and_answer_together() -> None:
    network = NetworkConfig(f"{MODULE}.TwoKinds").build(
        obs_dim=5, action_dim=7, pred_horizon=4, num_train_timesteps=100
    )
    inputs = (torch.randn(32, 4, 7), torch.full((32,), 3), torch.randn(32, 5))
    network.train()(*inputs)[:16].square().sum().backward()
    heard = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert heard == {"plain"}
    network.eval()
    mean = (network.plain(*inputs) + network.residual(*inputs)) / 2  # type: ignore[operator]
    torch.testing.assert_close(network(*inputs), mean)


def test_a_chunk_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a multiple of 2"):
        NetworkConfig(f"{MODULE}.SmallUNet").build(obs_dim=5, action_dim=7, pred_horizon=5, num_train_timesteps=100)
