"""The diffusion policy: DDIM against a known optimum, normalisation, determinism, gradients, files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import UserError
from policies import DiffusionConfig, DiffusionPolicy, NetworkConfig, PolicySpec, load_policy
from policies.networks import NoiseNetwork
from policies.normalizer import MinMaxNormalizer
from policies.schedule import cosine_alphas_cumprod, ddim_plan, ddim_timesteps
from rollouts.agents import DiffusionAgent
from rollouts.loop import Episode

MEAN, STD = 0.3, 0.2  # of the data that GaussianOracle knows, in normalised units


class GaussianOracle(NoiseNetwork):
    """The optimal network where every entry of the data is N(MEAN, STD^2), whatever the observation.

    With x = a x0 + s e (a^2 + s^2 = 1), E[e | x] = s (x - a MEAN) / (a^2 STD^2 + s^2) and
    E[x0 | x] = (x - s E[e | x]) / a.
    """

    def __init__(
        self, obs_dim: int, action_dim: int, pred_horizon: int, num_train_timesteps: int, prediction: str = "epsilon"
    ) -> None:
        super().__init__()
        self.prediction = prediction
        alphas = cosine_alphas_cumprod(num_train_timesteps)
        self.register_buffer("alphas", alphas.float(), persistent=False)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        alpha = self.get_buffer("alphas")[timestep].view(-1, 1, 1)
        signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
        epsilon = self.scale * noise * (noisy_actions - signal * MEAN) / (alpha * STD**2 + noise**2)
        # Not (x - s e) / a, which cancels where the signal is almost zero.
        clean = MEAN + signal * STD**2 * (noisy_actions - signal * MEAN) / (alpha * STD**2 + noise**2)
        return {"epsilon": epsilon, "sample": clean, "velocity": signal * epsilon - noise * clean}[self.prediction]


ORACLE = NetworkConfig(f"{__name__}.GaussianOracle")
PREDICTIONS = ("epsilon", "sample", "velocity")
SMALL = NetworkConfig(init_args={"hidden_dims": [32], "time_dim": 8})


def oracle(prediction: str) -> NetworkConfig:
    return NetworkConfig(ORACLE.class_path, {"prediction": prediction})


def make_policy(network: NetworkConfig = SMALL, **diffusion: object) -> DiffusionPolicy:
    torch.manual_seed(0)
    config = DiffusionConfig(**diffusion)  # type: ignore[arg-type]
    spec = PolicySpec({"robot0_eef_pos": 3, "object": 2}, 7, 4, network, config, {"env_name": "Lift"}, "lift", "abc")
    policy = DiffusionPolicy(spec)
    policy.obs_normalizer.set_range(-torch.ones(5), 2 * torch.ones(5))
    return policy.eval()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize(("spacing", "steps"), [("leading", 50), ("trailing", 50), ("leading", 100), ("trailing", 100)])
def test_ddim_with_the_optimal_network_draws_the_data_distribution(
    spacing: str, steps: int, clip_sample: bool, prediction: str
) -> None:
    policy = make_policy(oracle(prediction), spacing=spacing, clip_sample=clip_sample, prediction=prediction)
    with torch.no_grad():
        samples = policy.sample(torch.zeros(2000, 5), torch.Generator().manual_seed(0), ddim_steps=steps)
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(samples.std()) == pytest.approx(STD, rel=0.1)


def test_a_rows_actions_do_not_depend_on_the_other_rows() -> None:
    policy = make_policy(NetworkConfig())  # at full size: small products take one path at every number of rows
    obs, noise = torch.randn(9, 5), torch.randn(9, *policy.chunk_shape)
    together = policy.decode(obs, noise)
    for rows in ([0], [7, 1], [2, 8, 0], [3, 5, 4, 6], list(range(8))):
        assert torch.equal(policy.decode(obs[rows], noise[rows]), together[rows]), f"{len(rows)} rows"


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_is_the_closed_form_map_of_the_gaussian_case(prediction: str) -> None:
    # Without clipping, each step maps a Gaussian deviation (x - a MEAN) linearly; the product is the whole map.
    policy = make_policy(oracle(prediction), clip_sample=False, prediction=prediction)
    plan = ddim_plan(policy.alphas_cumprod, ddim_timesteps(100, 10, "leading"))
    gain, offset = 1.0, -plan[0].signal_in * MEAN
    for step in plan:
        variance = step.signal_in**2 * STD**2 + step.noise_in**2
        # x0 - MEAN = a STD^2 d / variance and e = s d / variance, for the deviation d = x - a MEAN.
        gain *= (step.signal_out * step.signal_in * STD**2 + step.noise_out * step.noise_in) / variance
    noise = torch.randn(16, 4, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        decoded = policy.decode(torch.zeros(16, 5), noise, ddim_steps=10)
    assert torch.allclose(decoded, (MEAN + gain * (noise + offset)).clamp(-1, 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("steps", "distance"), [(10, 0.5), (100, 0.1)])
def test_inverting_gives_back_the_noise_the_better_the_more_steps(prediction: str, steps: int, distance: float) -> None:
    policy = make_policy(oracle(prediction), clip_sample=False, prediction=prediction)
    obs, noise = torch.zeros(64, 5), torch.randn(64, 4, 7, generator=torch.Generator().manual_seed(2)).clamp(-2, 2)
    chunks = policy.decode(obs, noise, steps)
    assert chunks.abs().max() < 1, "none was clipped"
    found = policy.invert(obs, chunks, steps)
    assert (found - noise).square().mean().sqrt() < distance
    assert (policy.decode(obs, found, steps) - chunks).abs().max() < distance / 2


def test_decoding_never_waits_for_the_device() -> None:
    # The meta device has no values, so that whatever a host would have to read of it raises.
    policy = make_policy().to("meta")
    decoded = policy.decode(torch.zeros(6, 5, device="meta"), torch.zeros(6, 4, 7, device="meta"), ddim_steps=10)
    assert decoded.shape == (6, 4, 7)


def test_no_tensor_of_a_policy_is_in_double_precision() -> None:
    policy = make_policy()
    tensors = [*policy.parameters(), *policy.buffers()]
    assert all(tensor.dtype != torch.float64 for tensor in tensors), "which not every accelerator has"


def test_timesteps() -> None:
    assert ddim_timesteps(100, 10, "leading") == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert ddim_timesteps(100, 10, "trailing") == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert ddim_timesteps(100, 1, "leading") == [0]
    assert ddim_timesteps(100, 1, "trailing") == [99]


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("total", [1, 7, 20, 100])
def test_any_number_of_steps_is_a_descending_part_of_the_schedule(spacing: str, total: int) -> None:
    for steps in range(1, total + 1):
        visited = ddim_timesteps(total, steps, spacing)  # type: ignore[arg-type]
        assert len(set(visited)) == steps
        assert visited == sorted(visited, reverse=True)
        assert 0 <= visited[-1] <= visited[0] < total
    assert visited == list(range(total))[::-1]


@pytest.mark.parametrize("steps", [0, 101])
def test_a_number_of_steps_beyond_the_schedule(steps: int) -> None:
    with pytest.raises(ValueError, match=f"found {steps}"):
        ddim_timesteps(100, steps, "leading")


def test_the_noise_schedule_runs_from_clean_to_noise() -> None:
    alphas = cosine_alphas_cumprod(100)
    assert bool((alphas[1:] < alphas[:-1]).all())
    assert float(alphas[0]) > 0.999
    assert float(alphas[-1]) < 1e-3


def test_normaliser_round_trip_and_range() -> None:
    samples = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 10, 1e3, 1, 1])
    normalizer = MinMaxNormalizer((6,))
    normalizer.set_range(samples.amin(0), samples.amax(0))
    normalized = normalizer.normalize(samples)
    assert torch.allclose(normalized.amin(0), -torch.ones(6), atol=1e-5, rtol=0)
    assert torch.allclose(normalized.amax(0), torch.ones(6), atol=1e-5, rtol=0)
    assert torch.allclose(normalizer.denormalize(normalized), samples, rtol=1e-4, atol=1e-4)


def test_a_constant_dimension_maps_to_zero_and_back() -> None:
    samples = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    samples[:, 1] = 5.0
    normalizer = MinMaxNormalizer((2,))
    normalizer.set_range(samples.amin(0), samples.amax(0))
    assert bool((normalizer.normalize(samples)[:, 1] == 0).all())
    assert torch.allclose(normalizer.denormalize(normalizer.normalize(samples)), samples, atol=1e-6)
    # A value it has not seen moves it by as much, and not by the inverse of a tiny range.
    assert float(normalizer.normalize(torch.tensor([0.0, 5.01]))[1]) == pytest.approx(0.01, abs=1e-5)


def test_decode_is_deterministic_and_depends_on_noise_and_observation() -> None:
    policy = make_policy()
    obs, noise = torch.randn(6, 5), torch.randn(6, 4, 7)
    with torch.no_grad():
        first = policy.decode(obs, noise)
        assert torch.equal(first, policy.decode(obs, noise))
        # Each row by itself: what an environment gets does not depend on which others are in the batch.
        assert torch.allclose(first[2:3], policy.decode(obs[2:3], noise[2:3]), atol=1e-5, rtol=1e-4)
        assert not torch.equal(first, policy.decode(obs, noise.flip(0)))
        assert not torch.equal(first, policy.decode(obs.flip(0), noise))
    assert first.shape == (6, *policy.chunk_shape) == (6, 4, 7)
    assert float(first.abs().max()) <= 1


def test_sample_is_decode_of_standard_normal_noise() -> None:
    policy, obs = make_policy(), torch.randn(3, 5)
    noise = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(5))
    assert torch.equal(policy.sample(obs, torch.Generator().manual_seed(5)), policy.decode(obs, noise))


def test_target_poses_reach_beyond_what_bounds_motions() -> None:
    reached = {}
    for delta in (True, False):
        env_args = {"env_name": "Lift", "env_kwargs": {"controller_configs": {"control_delta": delta}}}
        policy = DiffusionPolicy(PolicySpec({"object": 2}, 7, 4, SMALL, env_args=env_args)).eval()
        policy.action_normalizer.set_range(-3.1 * torch.ones(4, 7), 3.1 * torch.ones(4, 7))
        generator = torch.Generator().manual_seed(0)
        reached[delta] = float(policy.sample(torch.zeros(20, 2), generator).detach().abs().max())
    assert reached == {True: 1.0, False: pytest.approx(3.1, abs=0.1)}


def test_decode_is_differentiable_in_noise() -> None:
    policy = make_policy(clip_sample=False).double()
    # The final clamp to the environment's range has no gradient beyond it: keep the actions inside.
    policy.action_normalizer.set_range(-0.01 * torch.ones(4, 7), 0.01 * torch.ones(4, 7))
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    noise = torch.randn(2, 4, 7, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: policy.decode(obs, w, ddim_steps=4), (noise,), atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_is_the_error_of_the_prediction(prediction: str) -> None:
    policy = make_policy(oracle(prediction), prediction=prediction)
    generator = torch.Generator().manual_seed(0)
    actions = MEAN + STD * torch.randn(20_000, 4, 7, generator=generator)
    alphas = torch.tensor(policy.alphas_cumprod)
    # The best there is, averaged over timesteps: Var(e | x) = a^2 STD^2 / (a^2 STD^2 + s^2),
    # Var(x0 | x) = Var(e | x) s^2 / a^2 and, as v = (e - s x) / a, Var(v | x) = Var(e | x) / a^2.
    variance = alphas * STD**2 / (alphas * STD**2 + 1 - alphas)
    factors = {"epsilon": torch.ones_like(alphas), "sample": (1 - alphas) / alphas, "velocity": 1 / alphas}
    floor = float((variance * factors[prediction]).mean())
    assert policy.loss(torch.zeros(20_000, 5), actions, generator).item() == pytest.approx(floor, rel=0.03)


def test_loss_repeats_with_its_generator() -> None:
    policy, obs, actions = make_policy(), torch.randn(8, 5), torch.rand(8, 4, 7)
    losses = [policy.loss(obs, actions, torch.Generator().manual_seed(seed)).item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_save_and_load_give_the_same_policy(tmp_path: Path) -> None:
    policy = make_policy(ddim_steps=5, spacing="trailing", clip_sample=False)
    policy.save(tmp_path / "p.safetensors")
    loaded = load_policy(tmp_path / "p.safetensors")
    assert loaded.spec == policy.spec
    obs, noise = torch.randn(6, 5), torch.randn(6, 4, 7)
    with torch.no_grad():
        assert torch.equal(loaded.decode(obs, noise), policy.decode(obs, noise))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def rewrite(path: Path, **changes: object) -> None:
    """Change fields of a stored policy's description."""
    with safe_open(path, "pt") as file:
        values = json.loads(file.metadata()["policy"])
    values = {key: value for key, value in {**values, **changes}.items() if value is not ...}
    save_file(load_file(path), path, metadata={"policy": json.dumps(values)})


def message_of(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_policy(path)
    return str(caught.value)


def test_a_file_of_another_format_version(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    make_policy().save(path)
    rewrite(path, format_version=0)
    message = message_of(path)
    assert "format 0" in message
    assert "reads format 1" in message
    assert "export the policy again" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"action_dim": 6}, "weights do not fit"),
        ({"obs_dims": {"object": 14}}, "weights do not fit"),
        ({"obs_dims": {}}, "obs_dims"),
        ({"pred_horizon": -1}, "pred_horizon"),
        ({"action_dim": 10**9}, "action_dim"),
        ({"action_dim": ...}, "action_dim"),
        ({"surprise": 1}, "surprise"),
        ({"diffusion": {"num_train_timesteps": 10**15}}, "num_train_timesteps"),
        ({"diffusion": {"num_train_timesteps": 100, "ddim_steps": 2.5}}, "ddim_steps"),
        ({"network": {"class_path": "policies.networks.MLPNoiseNetwork", "init_args": {"wdith": 3}}}, "wdith"),
        (
            {"network": {"class_path": "policies.networks.MLPNoiseNetwork", "init_args": {"hidden_dims": [10**8] * 9}}},
            "hidden_dims",
        ),
        ({"network": {"class_path": "policies.networks.MLPNoiseNetwork", "init_args": {"time_dim": 2}}}, "time_dim"),
        ({"env_args": [1]}, "env_args"),
        ({"task": 3}, "task"),
    ],
)
def test_a_damaged_description(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    path = tmp_path / "p.safetensors"
    make_policy().save(path)
    rewrite(path, **changes)
    message = message_of(path)
    assert expected in message
    assert str(path) in message or "network" in message


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    policy = make_policy()
    with torch.no_grad():
        next(policy.parameters())[0, 0] = torch.nan
    policy.save(tmp_path / "p.safetensors")
    assert "not finite" in message_of(tmp_path / "p.safetensors")


def test_safetensors_of_something_else(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "p.safetensors")
    assert "carries no policy description" in message_of(tmp_path / "p.safetensors")


def test_no_file_and_no_checkpoint(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "none.ckpt")
    for name in ("p.safetensors", "p.ckpt"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
        assert str(tmp_path / name) in message_of(tmp_path / name)


def test_an_unwritable_output_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        make_policy().save(tmp_path / "file" / "p.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_policys_own_noise_scale_is_what_it_samples_and_is_rolled_out_with(tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = make_policy(noise_scale=0.25)
    policy.save(tmp_path / "policy.safetensors")
    policy = DiffusionPolicy.load(tmp_path / "policy.safetensors")
    obs = torch.randn(6, 5)
    noise = torch.randn(6, 4, 7, generator=torch.Generator().manual_seed(3))
    expected = policy.decode(obs, 0.25 * noise)
    assert torch.equal(policy.sample(obs, torch.Generator().manual_seed(3)), expected)
    for given, scale in ((None, 0.25), (1.0, 1.0), (0.0, 0.0)):
        episodes = [Episode(i, i, np.random.default_rng(i)) for i in range(6)]
        drawn = np.stack([np.random.default_rng(i).standard_normal((4, 7), dtype=np.float32) for i in range(6)])
        chunks = DiffusionAgent(policy, given).act(obs.numpy(), episodes)
        assert np.array_equal(chunks, policy.decode(obs, scale * torch.from_numpy(drawn)).numpy())


@pytest.mark.parametrize("scale", [-0.5, float("nan"), "1"])
def test_a_noise_scale_that_is_none_is_refused(scale: Any) -> None:
    with pytest.raises(ValueError, match="noise_scale"):
        DiffusionConfig(noise_scale=scale)
