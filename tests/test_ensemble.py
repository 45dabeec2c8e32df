"""An ensemble is what its members are by themselves, averaged."""

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from policies import DiffusionPolicy, NetworkConfig, PolicySpec
from policies.networks import EnsembleLayerNorm, EnsembleLinear, MLPEnsemble, MLPNoiseNetwork

OBS, ACTION, HORIZON, MEMBERS = 5, 3, 2, 3
CLASS_PATH = "policies.networks.MLPEnsemble"


@pytest.fixture
def ensemble() -> MLPEnsemble:
    torch.manual_seed(0)
    network = MLPEnsemble(OBS, ACTION, HORIZON, members=MEMBERS, hidden_dims=[16, 8], time_dim=4)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)  # so that no bias is zero and no gain one
    return network


def member(ensemble: MLPEnsemble, index: int) -> MLPNoiseNetwork:
    """One member as a network of its own."""
    single = MLPNoiseNetwork(OBS, ACTION, HORIZON, hidden_dims=[16, 8], time_dim=4)
    for own, shared in zip(single.layers, ensemble.layers, strict=True):
        if isinstance(shared, EnsembleLinear):
            own.load_state_dict({"weight": shared.weight[index].T, "bias": shared.bias[index, 0]})
        elif isinstance(shared, EnsembleLayerNorm):
            own.load_state_dict({"weight": shared.weight[index, 0], "bias": shared.bias[index, 0]})
    return single


def inputs(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return (
        torch.randn(rows, HORIZON, ACTION, generator=generator),
        torch.randint(0, 100, (rows,), generator=generator),
        torch.randn(rows, OBS, generator=generator),
    )


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 9])
def test_each_row_of_a_training_batch_goes_to_one_member(ensemble: MLPEnsemble, rows: int) -> None:
    batch = inputs(rows)
    predicted = ensemble.train()(*batch)
    singles = [member(ensemble, index)(*batch) for index in range(MEMBERS)]
    expected = torch.stack([singles[row % MEMBERS][row] for row in range(rows)])
    torch.testing.assert_close(predicted, expected)


def test_a_row_teaches_its_member_alone(ensemble: MLPEnsemble) -> None:
    ensemble.train()(*inputs(4))[1].sum().backward()
    for parameter in ensemble.parameters():
        assert parameter.grad is not None
        taught = parameter.grad.flatten(1).any(1)
        assert taught.tolist() == [False, True, False]


def test_what_is_judged_is_the_average_of_the_members(ensemble: MLPEnsemble) -> None:
    batch = inputs(5)
    expected = torch.stack([member(ensemble, index)(*batch) for index in range(MEMBERS)]).mean(0)
    torch.testing.assert_close(ensemble.eval()(*batch), expected)


def test_members_begin_apart_and_as_widely_as_a_single_network() -> None:
    torch.manual_seed(0)
    ensemble = MLPEnsemble(OBS, ACTION, HORIZON, members=4)
    single = MLPNoiseNetwork(OBS, ACTION, HORIZON, hidden_dims=[512, 512, 512])
    for shared, own in zip(ensemble.layers, single.layers, strict=True):
        if isinstance(shared, EnsembleLinear):
            assert not torch.equal(shared.weight[0], shared.weight[1])
            spread = own.state_dict()
            assert float(shared.weight.detach().std()) == pytest.approx(float(spread["weight"].std()), rel=0.02)
            assert float(shared.bias.detach().std()) == pytest.approx(float(spread["bias"].std()), rel=0.2)


def test_a_rows_actions_do_not_depend_on_the_other_rows() -> None:
    torch.manual_seed(0)
    network = NetworkConfig(CLASS_PATH, {"members": 4, "hidden_dims": [64, 64]})
    policy = DiffusionPolicy(PolicySpec({"state": OBS}, ACTION, 4, network=network)).eval()
    obs, noise = torch.randn(40, OBS), torch.randn(40, 4, ACTION)
    with torch.inference_mode():
        whole = policy.decode(obs, noise)
        for rows in (1, 3, 8, 17):
            assert torch.equal(policy.decode(obs[:rows], noise[:rows]), whole[:rows])


@pytest.mark.parametrize("options", [{"members": 0}, {"time_dim": 3}, {"hidden_dims": [0]}])
def test_options_that_make_no_network_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        NetworkConfig(CLASS_PATH, options).build(OBS, ACTION, HORIZON, 100)
