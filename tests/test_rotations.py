"""Quaternions given to the network as 6D rotations."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from common.errors import UserError
from datamodules.robomimic_datamodule import RobomimicDataModule
from dsrl.noise_space import ChunkVecEnv, NoiseSpaceVecEnv
from envs.robosuite_common import quat2mat
from lightning_modules import DiffusionBC
from lightning_modules.diffusion_bc import Rotations
from policies import DiffusionPolicy, PolicySpec
from policies.networks import Mish, MLPNoiseNetwork
from policies.rotations import Rotations6D, find_quaternions
from rollouts.decoder import FrozenDecoder
from tests.dsrl_toy import ToyPool
from tests.human_data import human
from tests.test_training_as_a_library import trainer

DIMS = {"pose": 7, "other": 5}  # quaternions begin at 3 and at 7
SMALL = partial(MLPNoiseNetwork, hidden_dims=[8], time_dim=4)


def observations(n: int = 40, sign: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(n, 12, generator=generator)
    for start in (3, 7):
        obs[:, start : start + 4] /= obs[:, start : start + 4].norm(dim=1, keepdim=True)
    obs[:, 7:11] *= sign
    return obs


def module(rotations: Rotations = "6d") -> DiffusionBC:
    return DiffusionBC(DIMS, 4, 2, network=SMALL, quaternions=[3, 7], rotations=rotations)


def test_rows_are_those_of_robosuites_matrix() -> None:
    obs = observations()
    features = Rotations6D(12, [3, 7])(obs)
    assert torch.equal(features[:, :4], obs[:, [0, 1, 2, 11]])
    for i, start in enumerate((3, 7)):
        rows = np.array([quat2mat(quaternion)[:2].ravel() for quaternion in obs[:, start : start + 4].double().numpy()])
        np.testing.assert_allclose(features[:, 4 + 6 * i : 10 + 6 * i], rows, atol=1e-6)


@pytest.mark.parametrize("quaternions", [[9], [3, 5], [-1]])
def test_quaternions_that_do_not_fit_are_refused(quaternions: list[int]) -> None:
    with pytest.raises(ValueError, match="quaternions begin at"):
        Rotations6D(12, quaternions)


def test_quaternions_are_found_wherever_they_stand() -> None:
    obs = observations()
    obs[0, 7:11] = 0  # as robosuite's relative rotation right after a reset
    assert find_quaternions(obs) == [3, 7]
    assert find_quaternions(obs[:, :3]) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("square_ph_low_dim", [3, 12, 19]), ("can_mh_segments", [3, 12, 19]), ("lift_ph_segments", [3, 12])],
)
def test_quaternions_of_robomimics_files(name: str, expected: list[int]) -> None:
    assert RobomimicDataModule(str(human(f"human/{name}.hdf5"))).quaternions == expected


def test_a_policy_does_not_see_a_quaternions_sign(tmp_path: Path) -> None:
    trained = module()
    obs, actions = observations(), torch.rand(40, 2, 4) - 0.5
    trainer().fit(trained, DataLoader(TensorDataset(obs, actions), 8))
    features = trained.policy.features(obs)
    assert torch.equal(trained.policy.obs_normalizer.low, features.amin(0))
    trained.inference_policy.save(tmp_path / "policy.safetensors")
    policy = DiffusionPolicy.load(tmp_path / "policy.safetensors")
    assert policy.spec.quaternions == [3, 7]
    noise = torch.randn(40, 2, 4)
    expected = policy.decode(obs, noise)
    torch.testing.assert_close(policy.decode(observations(sign=-1.0), noise), expected)
    plain = module("quaternion").policy
    assert not torch.allclose(plain.decode(observations(sign=-1.0), noise), plain.decode(obs, noise), atol=1e-3)


def test_rotations_are_not_silently_left_as_they_are() -> None:
    with pytest.raises(UserError, match=r"no unit quaternion is known in the observations pose, other"):
        DiffusionBC(DIMS, 4, 2, network=SMALL, rotations="6d")


def test_sac_sees_the_rotations_that_the_network_sees() -> None:
    policy = DiffusionPolicy(PolicySpec(dict(DIMS), 2, 2, quaternions=[3, 7]))
    pool = ToyPool(2)
    pool.obs_dim = 12
    decoder = FrozenDecoder(policy)
    venv = NoiseSpaceVecEnv(ChunkVecEnv(pool, 2, int), decoder.decode, decoder.normalize_obs, 1.5)
    assert venv.observation_space.shape == (policy.spec.feature_dim,) == (16,)
    assert decoder.normalize_obs(observations(2).numpy()).shape == (2, 16)


def test_a_run_goes_on_only_with_the_same_rotations(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(observations(), torch.rand(40, 2, 4) - 0.5), 8)
    first = trainer()
    first.fit(module(), loader)
    first.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.raises(UserError, match=r"it has quaternions \[3, 7\], data and config say \[\]"):
        trainer(max_epochs=2).fit(module("quaternion"), loader, ckpt_path=tmp_path / "one.ckpt")


def test_a_checkpoint_without_the_field_has_quaternions_as_stored() -> None:
    values = PolicySpec(dict(DIMS), 4, 2).to_dict()
    del values["quaternions"]
    assert PolicySpec.from_dict(values, "a file").quaternions == []


def test_what_mish_computes_when_compiled_is_mish() -> None:
    x = torch.linspace(-30, 30, 1001, requires_grad=True)
    compiled = torch.compile(Mish())(x)
    expected = torch.nn.functional.mish(x)
    torch.testing.assert_close(compiled, expected, rtol=2e-6, atol=1e-7)
    weights = torch.linspace(1, 2, 1001)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (compiled, expected)]
    torch.testing.assert_close(*gradients, rtol=2e-5, atol=1e-6)
