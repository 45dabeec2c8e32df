"""An ensemble is what its members are by themselves, averaged."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from common.errors import UserError
from policies import DiffusionPolicy, NetworkConfig, PolicySpec
from policies.networks import EnsembleLayerNorm, EnsembleLinear, MLPEnsemble, MLPNoiseNetwork, ResidualEnsemble

OBS, ACTION, HORIZON, MEMBERS = 5, 3, 2, 3
CLASS_PATH = "policies.networks.MLPEnsemble"
RESIDUAL = "policies.networks.ResidualEnsemble"


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


def residual(members: int, dropout: float) -> ResidualEnsemble:
    torch.manual_seed(0)
    network = ResidualEnsemble(
        OBS, ACTION, HORIZON, members=members, width=16, inner=8, blocks=2, dropout=dropout, time_dim=4
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


def residual_member(ensemble: ResidualEnsemble, index: int, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """What one member predicts, by torch's own layers: x + Linear(Mish(Linear(LayerNorm(x)))), twice."""
    weights = {name: value[index] for name, value in ensemble.state_dict().items()}

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"].T, weights[f"{name}.bias"][0])

    def normed(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"][0], weights[f"{name}.bias"][0])

    noisy, timestep, obs = batch
    x = linear("layers.0", torch.cat([noisy.flatten(1), obs, ensemble.get_buffer("time_table")[timestep]], dim=1))
    for block in ("layers.1.layers", "layers.2.layers"):
        x = x + linear(f"{block}.4", functional.mish(linear(f"{block}.1", normed(f"{block}.0", x))))
    return linear("layers.5", functional.mish(normed("layers.3", x))).view_as(noisy)


def test_a_residual_ensemble_is_its_members_too() -> None:
    whole, batch = residual(MEMBERS, 0.0), inputs(7)
    singles = [residual_member(whole, index, batch) for index in range(MEMBERS)]
    torch.testing.assert_close(whole.eval()(*batch), torch.stack(singles).mean(0))
    expected = torch.stack([singles[row % MEMBERS][row] for row in range(7)])
    torch.testing.assert_close(whole.train()(*batch), expected)


def test_dropout_is_for_training_alone_and_keeps_the_mean() -> None:
    whole, plain, batch = residual(MEMBERS, 0.5), residual(MEMBERS, 0.0), inputs(7)
    torch.testing.assert_close(whole.eval()(*batch), plain.eval()(*batch))
    assert not torch.equal(whole.train()(*batch), whole(*batch))
    block, x = list(whole.layers)[1], torch.randn(MEMBERS, 1, 16)
    drawn = torch.stack([block(x) for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(0), block.eval()(x), atol=0.2, rtol=0)


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


@pytest.mark.parametrize(
    ("class_path", "options"),
    [(CLASS_PATH, {"hidden_dims": [64, 64]}), (RESIDUAL, {"width": 64, "inner": 32})],
    ids=["plain", "residual"],
)
def test_a_rows_actions_do_not_depend_on_the_other_rows(class_path: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = NetworkConfig(class_path, {"members": 4, **options})
    policy = DiffusionPolicy(PolicySpec({"state": OBS}, ACTION, 4, network=network)).eval()
    obs, noise = torch.randn(40, OBS), torch.randn(40, 4, ACTION)
    with torch.inference_mode():
        whole = policy.decode(obs, noise)
        for rows in (1, 3, 8, 17):
            assert torch.equal(policy.decode(obs[:rows], noise[:rows]), whole[:rows])


@pytest.mark.parametrize(
    ("class_path", "options", "named"),
    [
        (CLASS_PATH, {"members": 0}, "members is 0"),
        (CLASS_PATH, {"time_dim": 3}, "time_dim is 3"),
        (CLASS_PATH, {"hidden_dims": [0]}, r"hidden_dims is \[0\]"),
        (RESIDUAL, {"members": 0}, "members is 0"),
        (RESIDUAL, {"time_dim": 3}, "time_dim is 3"),
        (RESIDUAL, {"width": 0}, "width is 0"),
        (RESIDUAL, {"inner": 0}, "inner is 0"),
        (RESIDUAL, {"blocks": -1}, "blocks is -1"),
        (RESIDUAL, {"dropout": 1.0}, r"dropout is 1\.0"),
        (RESIDUAL, {"dropout": -0.1}, r"dropout is -0\.1"),
    ],
)
def test_options_that_make_no_network_are_refused(class_path: str, options: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        NetworkConfig(class_path, options).build(OBS, ACTION, HORIZON, 100)
