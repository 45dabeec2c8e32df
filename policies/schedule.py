"""The diffusion process: cosine noise schedule, forward noising, deterministic DDIM."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["leading", "trailing"]
Prediction = Literal["epsilon", "sample", "velocity"]

MAX_TIMESTEPS = 100_000  # a stored number must not decide how long a program counts


@dataclass(frozen=True)
class DiffusionConfig:
    """Settings of the diffusion process.

    Args:
        num_train_timesteps: noise levels the network is trained on.
        ddim_steps: denoising steps at inference unless a call asks for another number.
        spacing: which levels DDIM visits: "leading" (0, T/n, 2T/n, ... reversed) or "trailing" (T-1, T-1-T/n, ...).
        clip_sample: clamp each step's estimate of the clean chunk to the data range [-1, 1].
        prediction: what the network is trained to give: the noise ("epsilon"), the clean chunk ("sample"), or
            sqrt(a) noise - sqrt(1 - a) clean ("velocity"; Salimans & Ho 2022, section 4).
        noise_scale: the policy by itself samples from noise_scale N(0, I), unless a call asks for another. 1 is as in
            training; less makes it surer of itself. RL chooses its noise without regard to it.
    """

    num_train_timesteps: int = 100
    ddim_steps: int = 10
    spacing: Spacing = "leading"
    clip_sample: bool = True
    prediction: Prediction = "epsilon"
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("num_train_timesteps", "ddim_steps"):
            if type(getattr(self, name)) is not int:
                raise TypeError(f"{name} must be a whole number, found {getattr(self, name)!r}")
        if not 1 <= self.num_train_timesteps <= MAX_TIMESTEPS:
            raise ValueError(f"num_train_timesteps must lie in 1..{MAX_TIMESTEPS}, found {self.num_train_timesteps}")
        if not 1 <= self.ddim_steps <= self.num_train_timesteps:
            raise ValueError(
                f"ddim_steps must lie in 1..{self.num_train_timesteps} (num_train_timesteps), found {self.ddim_steps}"
            )
        if self.spacing not in ("leading", "trailing"):
            raise ValueError(f'spacing must be "leading" or "trailing", found {self.spacing!r}')
        if not isinstance(self.clip_sample, bool):
            raise TypeError(f"clip_sample must be true or false, found {self.clip_sample!r}")
        if type(self.noise_scale) not in (int, float) or not 0 <= self.noise_scale < math.inf:
            raise ValueError(f"noise_scale must be 0 or more, found {self.noise_scale!r}")
        if self.prediction not in ("epsilon", "sample", "velocity"):
            raise ValueError(f'prediction must be "epsilon", "sample" or "velocity", found {self.prediction!r}')


def training_target(prediction: Prediction, clean: Tensor, noise: Tensor, signal: Tensor, level: Tensor) -> Tensor:
    """What the network should give for ``signal * clean + level * noise``; all broadcast to (B, H, A)."""
    if prediction == "epsilon":
        return noise
    return clean if prediction == "sample" else signal * noise - level * clean


def cosine_alphas_cumprod(num_timesteps: int, max_beta: float = 0.999) -> Tensor:
    """(num_timesteps,) float64 cumulative signal level (Nichol & Dhariwal 2021, eq. 17, s = 0.008)."""

    def signal(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [
        min(1 - signal((t + 1) / num_timesteps) / signal(t / num_timesteps), max_beta) for t in range(num_timesteps)
    ]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0)


def ddim_timesteps(num_train_timesteps: int, ddim_steps: int, spacing: Spacing) -> list[int]:
    """The timesteps DDIM visits, noisiest first."""
    if not 1 <= ddim_steps <= num_train_timesteps:
        raise ValueError(f"ddim_steps must lie in 1..{num_train_timesteps} (num_train_timesteps), found {ddim_steps}")
    if spacing == "leading":
        stride = num_train_timesteps // ddim_steps
        return [stride * i for i in reversed(range(ddim_steps))]
    return [round(num_train_timesteps * (1 - i / ddim_steps)) - 1 for i in range(ddim_steps)]


@dataclass(frozen=True)
class DDIMStep:
    """Coefficients of one DDIM step with eta = 0 (Song et al. 2021, eq. 12).

    x = signal_in * x0 + noise_in * eps;  x' = signal_out * x0 + noise_out * eps.
    """

    timestep: int
    signal_in: float
    noise_in: float
    signal_out: float
    noise_out: float

    def clean_and_noise(self, sample: Tensor, predicted: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Estimates of x0 and eps, shaped like ``sample``, from the network's output at this step."""
        if prediction == "epsilon":
            return (sample - self.noise_in * predicted) / self.signal_in, predicted
        if prediction == "sample":
            return predicted, (sample - self.signal_in * predicted) / self.noise_in
        clean = self.signal_in * sample - self.noise_in * predicted
        return clean, self.noise_in * sample + self.signal_in * predicted


def ddim_plan(alphas_cumprod: Sequence[float], timesteps: list[int]) -> list[DDIMStep]:
    """Coefficients for a descending list of timesteps; the last step ends at the clean sample."""
    levels = [alphas_cumprod[t] for t in timesteps] + [1.0]
    return [
        DDIMStep(t, math.sqrt(now), math.sqrt(1 - now), math.sqrt(after), math.sqrt(1 - after))
        for t, now, after in zip(timesteps, levels[:-1], levels[1:], strict=True)
    ]
