"""A diffusion policy over action chunks, in plain PyTorch."""

import itertools
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from common.controllers import are_absolute
from common.errors import UserError
from policies.normalizer import MinMaxNormalizer
from policies.rotations import Rotations6D
from policies.rows import pad_rows
from policies.schedule import DDIMStep, cosine_alphas_cumprod, ddim_plan, ddim_timesteps, training_target
from policies.spec import PolicySpec
from policies.storage import read_policy, write_policy


class DiffusionPolicy(nn.Module):
    """Maps raw observations to chunks of environment actions by denoising.

    The normalisers live inside: observations (B, obs_dim) come in raw units, actions (B, pred_horizon, action_dim)
    leave in the environment's units: motions within [-1, 1], or target poses.

    Args:
        spec: dimensions, network and diffusion settings.
    """

    def __init__(self, spec: PolicySpec) -> None:
        super().__init__()
        self.spec = spec
        self.network = spec.network.build(
            spec.feature_dim, spec.action_dim, spec.pred_horizon, spec.diffusion.num_train_timesteps
        )
        self.features = Rotations6D(spec.obs_dim, spec.quaternions)
        self.obs_normalizer = MinMaxNormalizer((spec.feature_dim,))
        # Each position in the window has its own range, as in the seed recipe (the window is flattened there).
        self.action_normalizer = MinMaxNormalizer((spec.pred_horizon, spec.action_dim))
        alphas_cumprod = cosine_alphas_cumprod(spec.diffusion.num_train_timesteps)
        # Plain numbers: a tensor's would have to be fetched from the device at every step of every decode.
        self.alphas_cumprod: list[float] = alphas_cumprod.tolist()
        self._plans: dict[int, list[DDIMStep]] = {}
        self.register_buffer("_signal", alphas_cumprod.sqrt().float(), persistent=False)
        self.register_buffer("_noise", (1 - alphas_cumprod).sqrt().float(), persistent=False)

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(pred_horizon, action_dim)."""
        return self.spec.pred_horizon, self.spec.action_dim

    def normalize_obs(self, obs: Tensor) -> Tensor:
        """(B, obs_dim) raw units -> (B, feature_dim), [-1, 1] over the training data's range."""
        return self.obs_normalizer.normalize(self.features(obs))

    def loss(self, obs: Tensor, actions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of the network's prediction at random timesteps (of the noise: Ho et al. 2020, eq. 14).

        Args:
            obs: (B, obs_dim), raw units.
            actions: (B, pred_horizon, action_dim), environment units.
            generator: source of the timesteps and the noise.

        Returns:
            A scalar.
        """
        batch = obs.shape[0]
        steps = self.spec.diffusion.num_train_timesteps
        timestep = torch.randint(0, steps, (batch,), device=obs.device, generator=generator)
        noise = torch.randn(actions.shape, device=obs.device, dtype=actions.dtype, generator=generator)
        clean = self.action_normalizer.normalize(actions)
        signal_level = self.get_buffer("_signal")[timestep].view(-1, 1, 1)
        noise_level = self.get_buffer("_noise")[timestep].view(-1, 1, 1)
        predicted = self.network(signal_level * clean + noise_level * noise, timestep, self.normalize_obs(obs))
        target = training_target(self.spec.diffusion.prediction, clean, noise, signal_level, noise_level)
        return mse_loss(predicted.float(), target)

    def decode(self, obs: Tensor, noise: Tensor, ddim_steps: int | None = None) -> Tensor:
        """Denoise ``noise`` into actions: deterministic DDIM, differentiable in ``noise``.

        On a CPU a row's actions do not depend on the other rows or on their number (``policies.rows``).

        Args:
            obs: (B, obs_dim), raw units.
            noise: (B, pred_horizon, action_dim), standard normal where actions are to be sampled.
            ddim_steps: number of denoising steps; None takes the policy's own.

        Returns:
            (B, pred_horizon, action_dim) actions: motions in [-1, 1]; target poses have no bound but the data's.
        """
        return self.decode_normalized(self.normalize_obs(obs), noise, ddim_steps)

    def decode_normalized(self, obs: Tensor, noise: Tensor, ddim_steps: int | None = None) -> Tensor:
        """``decode`` for observations (B, feature_dim) that ``normalize_obs`` gave."""
        return self.denoise(pad_rows(obs), pad_rows(noise), ddim_steps)[: len(noise)]

    def denoise(self, normalized_obs: Tensor, noise: Tensor, ddim_steps: int | None = None) -> Tensor:
        """``decode_normalized`` whose last digits may depend on the number of rows: the plain computation."""
        diffusion = self.spec.diffusion
        sample = noise
        for step in self._plan(diffusion.ddim_steps if ddim_steps is None else ddim_steps):
            timestep = torch.full((sample.shape[0],), step.timestep, dtype=torch.long, device=sample.device)
            predicted = self.network(sample, timestep, normalized_obs)
            clean, epsilon = step.clean_and_noise(sample, predicted, diffusion.prediction)
            if diffusion.clip_sample:
                clean = clean.clamp(-1, 1)
            sample = step.signal_out * clean + step.noise_out * epsilon
        actions = self.action_normalizer.denormalize(sample)
        return actions if are_absolute(self.spec.env_args) else actions.clamp(-1, 1)

    @torch.no_grad()
    def invert(self, obs: Tensor, actions: Tensor, ddim_steps: int | None = None) -> Tensor:
        """Noise that ``decode`` maps close to ``actions``: DDIM's equation backwards (Song et al. 2021, section 4.3).

        A step back takes the network's answer at the cleaner of its two samples for that at the noisier one. It is a
        start for ``dsrl.prefill.find_noise``, no more: it knows nothing of ``decode``'s clamps, and begins from what
        the network makes of the clean chunk (what the policy would not produce, divided by the last level's little
        noise, would become a great deal of it).

        Args:
            obs: (B, obs_dim), raw units.
            actions: (B, pred_horizon, action_dim), environment units.
            ddim_steps: number of denoising steps; None takes the policy's own.

        Returns:
            (B, pred_horizon, action_dim), without a bound.
        """
        diffusion = self.spec.diffusion
        backwards = self._plan(diffusion.ddim_steps if ddim_steps is None else ddim_steps)[::-1]
        normalized_obs = self.normalize_obs(obs)

        def estimates(sample: Tensor, step: DDIMStep) -> tuple[Tensor, Tensor]:
            timestep = torch.full((sample.shape[0],), step.timestep, dtype=torch.long, device=sample.device)
            return step.clean_and_noise(sample, self.network(sample, timestep, normalized_obs), diffusion.prediction)

        last = backwards[0]
        sample = last.signal_in * estimates(last.signal_in * self.action_normalizer.normalize(actions), last)[0]
        for cleaner, noisier in itertools.pairwise(backwards):
            clean, epsilon = estimates(sample, cleaner)
            sample = noisier.signal_in * clean + noisier.noise_in * epsilon
        return sample

    def _plan(self, ddim_steps: int) -> list[DDIMStep]:
        """The coefficients of ``ddim_steps`` denoising steps, made once."""
        if ddim_steps not in self._plans:
            diffusion = self.spec.diffusion
            timesteps = ddim_timesteps(diffusion.num_train_timesteps, ddim_steps, diffusion.spacing)
            self._plans[ddim_steps] = ddim_plan(self.alphas_cumprod, timesteps)
        return self._plans[ddim_steps]

    def sample(self, obs: Tensor, generator: torch.Generator | None = None, ddim_steps: int | None = None) -> Tensor:
        """``decode`` of the policy's own noise: (B, obs_dim) -> (B, pred_horizon, action_dim)."""
        noise = torch.randn(obs.shape[0], *self.chunk_shape, device=obs.device, generator=generator)
        noise = self.spec.diffusion.noise_scale * noise
        return self.decode(obs, noise, ddim_steps)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with the spec inside, whole or not at all."""
        write_policy(path, self.spec, self.state_dict())

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "DiffusionPolicy":
        """Load for inference: what ``save`` wrote, or a Lightning checkpoint (``.ckpt``, its EMA weights).

        Raises:
            UserError: the file is missing, is neither kind, is damaged, or would execute code.
        """
        spec, tensors = read_policy(Path(path))
        policy = cls(spec)
        shapes = {name: list(value.shape) for name, value in policy.state_dict().items()}
        found = {name: list(value.shape) for name, value in tensors.items() if value.layout == torch.strided}
        if shapes != found:
            name = next(name for name in sorted({**shapes, **found}) if shapes.get(name) != found.get(name))
            raise UserError(
                f"checkpoint {path}: the weights do not fit its own description, such as {name}: found shape "
                f"{found.get(name)}, expected {shapes.get(name)}"
            )
        policy.load_state_dict(tensors)
        if not all(bool(torch.isfinite(value.float()).all()) for value in tensors.values()):
            raise UserError(f"checkpoint {path} holds weights that are not finite: choose an earlier checkpoint")
        return policy.to(device).eval().requires_grad_(False)


load_policy = DiffusionPolicy.load
