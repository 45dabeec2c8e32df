"""FusedAdam is torch's fused Adam, also across a stored state and for either's state."""

import copy

import pytest
import torch

from dsrl.fused_adam import FusedAdam

STEPS = 7


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 5), (5,), (1,))]


def take_steps(optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for parameter in optimizer.param_groups[0]["params"]:
            assert parameter.grad is None
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def make(kind: type[torch.optim.Adam], weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return FusedAdam(weights, lr=0.1) if kind is FusedAdam else torch.optim.Adam(weights, lr=0.1, fused=True)


def expected() -> list[torch.nn.Parameter]:
    """After two rounds of steps of torch's own, the second at another rate."""
    weights = parameters()
    optimizer = make(torch.optim.Adam, weights)
    take_steps(optimizer, 1)
    optimizer.param_groups[0]["lr"] = 0.02
    take_steps(optimizer, 2)
    return weights


def test_steps_are_those_of_torch() -> None:
    weights = parameters()
    optimizer = make(FusedAdam, weights)
    take_steps(optimizer, 1)
    optimizer.param_groups[0]["lr"] = 0.02
    take_steps(optimizer, 2)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights, expected(), strict=True))


@pytest.mark.parametrize("first", [FusedAdam, torch.optim.Adam])
@pytest.mark.parametrize("second", [FusedAdam, torch.optim.Adam])
def test_a_stored_state_goes_on_in_either(first: type[torch.optim.Adam], second: type[torch.optim.Adam]) -> None:
    weights = parameters()
    before = make(first, weights)
    take_steps(before, 1)
    after = make(second, weights)
    take_steps(after, 3)  # moments of its own, which the loaded ones replace
    trained = parameters()
    take_steps(make(first, trained), 1)
    with torch.no_grad():
        for weight, value in zip(weights, trained, strict=True):
            weight.copy_(value)
    state = copy.deepcopy(before.state_dict())
    state["param_groups"][0]["lr"] = 0.02
    after.load_state_dict(state)
    take_steps(after, 2)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights, expected(), strict=True))
