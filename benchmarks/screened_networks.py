"""Networks that were screened on human demonstrations and are not this project's own (docs/tried.md).

python cli.py fit ... --model.network.class_path benchmarks.screened_networks.SmallUNet
python cli.py evaluate ... --network_module benchmarks.screened_networks
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.networks import Mish, MLPEnsemble, NoiseNetwork, ResidualEnsemble, sinusoidal_table


class TwoKinds(NoiseNetwork):
    """Eight plain and eight residual members, averaged: two kinds differ more in rare states than members of one do.

    In training the first half of a batch goes to the plain members, the other half to the residual ones: sixteen times
    the batch size of a single network.
    """

    def __init__(self, obs_dim: int, action_dim: int, pred_horizon: int, num_train_timesteps: int = 100) -> None:
        super().__init__()
        sizes = (obs_dim, action_dim, pred_horizon, num_train_timesteps)
        self.plain = MLPEnsemble(*sizes, members=8, hidden_dims=(256, 256, 256))
        self.residual = ResidualEnsemble(*sizes, members=8)

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        inputs = (noisy_actions, timestep, obs)
        if not self.training:
            return (self.plain(*inputs) + self.residual(*inputs)) / 2
        half = len(noisy_actions) // 2
        first, second = ([part[rows] for part in inputs] for rows in (slice(half), slice(half, None)))
        return torch.cat([self.plain(*first), self.residual(*second)])


class _Conv(nn.Module):
    """A convolution with kernel 3 over (B, L, C), as one matrix product: on a CPU far faster than ``nn.Conv1d``."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.linear, self.stride = nn.Linear(3 * channels_in, channels_out), stride

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, (0, 0, 1, 1))
        shifted = torch.cat([padded[:, k : k + x.shape[1]] for k in range(3)], dim=-1)
        return self.linear(shifted[:, :: self.stride])


class _GroupNorm(nn.Module):
    """``nn.GroupNorm`` with 8 groups, over (B, L, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.float().unflatten(-1, (8, -1))
        centred = grouped - grouped.mean((1, 3), keepdim=True)
        normed = centred * (centred.square().mean((1, 3), keepdim=True) + 1e-5).rsqrt()
        return (normed.flatten(2) * self.weight + self.bias).to(x.dtype)


class _Block(nn.Module):
    """Two convolutions; between them observation and timestep scale and shift every channel (FiLM)."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_Conv(channels_in, channels_out), _GroupNorm(channels_out), Mish())
        self.second = nn.Sequential(_Conv(channels_out, channels_out), _GroupNorm(channels_out), Mish())
        self.film = nn.Sequential(Mish(), nn.Linear(condition, 2 * channels_out))
        self.skip = nn.Linear(channels_in, channels_out) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, None].chunk(2, dim=-1)
        return self.second(scale * self.first(x) + shift) + self.skip(x)


class _Level(nn.Module):
    """Two blocks, the first of which changes the number of channels."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.first = _Block(channels_in, channels_out, condition)
        self.second = _Block(channels_out, channels_out, condition)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.second(self.first(x, condition), condition)


class SmallUNet(NoiseNetwork):
    """Diffusion Policy's ``ConditionalUnet1D`` at a size for a CPU.

    The chunk's length is halved ``len(dims)`` - 1 times.

    Args:
        obs_dim, action_dim, pred_horizon, num_train_timesteps: as every network's.
        dims: channels at each resolution.
        time_dim: size of the sinusoidal time embedding.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        pred_horizon: int,
        num_train_timesteps: int = 100,
        dims: Sequence[int] = (64, 128),
        time_dim: int = 128,
    ) -> None:
        super().__init__()
        if pred_horizon % 2 ** (len(dims) - 1):
            raise ValueError(f"pred_horizon is {pred_horizon}: expected a multiple of {2 ** (len(dims) - 1)}")
        self.register_buffer("time_table", sinusoidal_table(num_train_timesteps, time_dim), persistent=False)
        self.time = nn.Sequential(nn.Linear(time_dim, 4 * time_dim), Mish(), nn.Linear(4 * time_dim, time_dim))
        condition = time_dim + obs_dim
        self.down = nn.ModuleList(_Level(i, o, condition) for i, o in itertools.pairwise([action_dim, *dims]))
        self.halve = nn.ModuleList(_Conv(o, o, 2) for o in dims[:-1])
        self.middle = _Level(dims[-1], dims[-1], condition)
        wider = list(itertools.pairwise(dims))[::-1]
        self.up = nn.ModuleList(_Level(2 * o, i, condition) for i, o in wider)
        self.widen = nn.ModuleList(_Conv(i, i) for i, _ in wider)
        self.last = nn.Sequential(_Conv(dims[0], dims[0]), _GroupNorm(dims[0]), Mish(), nn.Linear(dims[0], action_dim))

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        condition = torch.cat([self.time(self.get_buffer("time_table")[timestep]), obs], dim=-1)
        x, skipped = noisy_actions, []
        for n, level in enumerate(self.down):
            x = level(self.halve[n - 1](x) if n > 0 else x, condition)
            skipped.append(x)
        x = self.middle(x, condition)
        for level, widen in zip(self.up, self.widen, strict=True):
            x = level(torch.cat([x, skipped.pop()], dim=-1), condition)
            x = widen(x.repeat_interleave(2, dim=1))
        return self.last(x)
