"""Noise-prediction networks: the part of a diffusion policy that is trained."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class NoiseNetwork(nn.Module):
    """Base class of everything that may be named as a policy's network.

    Subclasses take ``obs_dim``, ``action_dim``, ``pred_horizon`` and ``num_train_timesteps`` first, then options of
    their own, which must be plain JSON values because they are stored in checkpoints. ``obs_dim`` counts what the
    network sees, with 6D rotations two more for each quaternion.
    """

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        """Predict the noise in an action chunk, or whatever ``DiffusionConfig.prediction`` names.

        Args:
            noisy_actions: (B, pred_horizon, action_dim), normalised.
            timestep: (B,) int64 diffusion timesteps, 0 is the cleanest.
            obs: (B, obs_dim), normalised.

        Returns:
            (B, pred_horizon, action_dim) prediction.
        """
        raise NotImplementedError


def sinusoidal_table(num_timesteps: int, dim: int) -> Tensor:
    """(num_timesteps, dim) embedding of integer timesteps: sines, then cosines (Vaswani et al. 2017, section 3.5).

    Raises:
        ValueError: ``dim``, a network's ``time_dim``, is odd or below 4.
    """
    if dim < 4 or dim % 2:
        raise ValueError(f"time_dim is {dim}: expected an even number, at least 4")
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000.0) / (half - 1) * torch.arange(half, dtype=torch.float64))
    angles = torch.arange(num_timesteps, dtype=torch.float64)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


class Mish(nn.Mish):
    """``nn.Mish``, in a form that ``torch.compile`` makes twice as fast on a CPU.

    x tanh(log(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2): one exponential, no logarithm and no tanh.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x)
        e = x.float().clamp(max=20.0).exp()  # beyond, the fraction is 1 in single precision
        n = e * (e + 2)
        return (x * (n / (n + 2))).to(x.dtype)


class MLPNoiseNetwork(NoiseNetwork):
    """concat(noisy chunk, observation, time embedding) -> hidden x [Linear, LayerNorm, Mish] -> Linear.

    Args:
        obs_dim: size of the flat observation.
        action_dim: size of one action.
        pred_horizon: actions per chunk.
        num_train_timesteps: length of the diffusion schedule, the rows of the time embedding.
        hidden_dims: width of each hidden layer.
        time_dim: size of the sinusoidal time embedding; even, at least 4.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        pred_horizon: int,
        num_train_timesteps: int = 100,
        hidden_dims: Sequence[int] = (1024, 1024, 1024),
        time_dim: int = 128,
    ) -> None:
        super().__init__()
        _check_widths(hidden_dims)
        self.register_buffer("time_table", sinusoidal_table(num_train_timesteps, time_dim), persistent=False)
        layers: list[nn.Module] = []
        width = pred_horizon * action_dim + obs_dim + time_dim
        for hidden in hidden_dims:
            layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), Mish()]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, pred_horizon * action_dim))

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        features = _joined(noisy_actions, self.get_buffer("time_table")[timestep], obs)
        return self.layers(features).view_as(noisy_actions)


class EnsembleLinear(nn.Module):
    """One ``nn.Linear`` per member, as one batched product: (members, B, in) -> (members, B, out)."""

    def __init__(self, members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleLayerNorm(nn.Module):
    """One ``nn.LayerNorm`` per member: (members, B, features)."""

    def __init__(self, members: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, features))
        self.bias = nn.Parameter(torch.zeros(members, 1, features))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class NetworkEnsemble(NoiseNetwork):
    """Several networks, each trained on batches of its own; what they predict is averaged.

    What a network makes of states that its data hardly hold is mostly an accident of its start and its batches, and
    such accidents average out (deep ensembles: Lakshminarayanan et al. 2017).

    A batch in training mode is dealt out: row i trains member i % ``members`` alone. So ``members`` times the batch
    size gives each of them the batch that a single network would have had. In eval mode all rows go through all.

    Subclasses set ``layers``: (members, B, pred_horizon * action_dim + obs_dim + time_dim), a member's noisy chunk,
    observation and time embedding, to (members, B, pred_horizon * action_dim).

    Args:
        num_train_timesteps: length of the diffusion schedule, the rows of the time embedding.
        members: how many networks.
        time_dim: size of the sinusoidal time embedding; even, at least 4.
    """

    layers: nn.Sequential

    def __init__(self, num_train_timesteps: int, members: int, time_dim: int) -> None:
        super().__init__()
        if members < 1:
            raise ValueError(f"members is {members}: expected at least 1")
        self.members = members
        self.register_buffer("time_table", sinusoidal_table(num_train_timesteps, time_dim), persistent=False)

    def forward(self, noisy_actions: Tensor, timestep: Tensor, obs: Tensor) -> Tensor:
        features = _joined(noisy_actions, self.get_buffer("time_table")[timestep], obs)
        if not self.training:
            predicted = self.layers(features.expand(self.members, *features.shape)).mean(0)
            return predicted.view_as(noisy_actions)
        rows = len(features)
        filled = functional.pad(features, (0, 0, 0, -rows % self.members))
        dealt = filled.view(-1, self.members, filled.shape[-1]).transpose(0, 1)
        return self.layers(dealt).transpose(0, 1).flatten(0, 1)[:rows].view_as(noisy_actions)


class MLPEnsemble(NetworkEnsemble):
    """An ensemble of ``MLPNoiseNetwork``.

    Args:
        obs_dim: size of the flat observation.
        action_dim: size of one action.
        pred_horizon: actions per chunk.
        num_train_timesteps: length of the diffusion schedule, the rows of the time embedding.
        members: how many networks.
        hidden_dims: width of each hidden layer of a member.
        time_dim: size of the sinusoidal time embedding; even, at least 4.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        pred_horizon: int,
        num_train_timesteps: int = 100,
        members: int = 5,
        hidden_dims: Sequence[int] = (512, 512, 512),
        time_dim: int = 128,
    ) -> None:
        _check_widths(hidden_dims)
        super().__init__(num_train_timesteps, members, time_dim)
        layers: list[nn.Module] = []
        width = pred_horizon * action_dim + obs_dim + time_dim
        for hidden in hidden_dims:
            layers += [EnsembleLinear(members, width, hidden), EnsembleLayerNorm(members, hidden), Mish()]
            width = hidden
        self.layers = nn.Sequential(*layers, EnsembleLinear(members, width, pred_horizon * action_dim))


class _Residual(nn.Module):
    """x + f(x), f = [LayerNorm, Linear, Mish, Dropout, Linear], for each member: (members, B, width)."""

    def __init__(self, members: int, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            EnsembleLayerNorm(members, width),
            EnsembleLinear(members, width, inner),
            Mish(),
            nn.Dropout(dropout),
            EnsembleLinear(members, inner, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResidualEnsemble(NetworkEnsemble):
    """An ensemble of residual networks with dropout, for few demonstrations.

    Args:
        obs_dim: size of the flat observation.
        action_dim: size of one action.
        pred_horizon: actions per chunk.
        num_train_timesteps: length of the diffusion schedule, the rows of the time embedding.
        members: how many networks.
        width: of the residual stream.
        inner: width within a block.
        blocks: how many.
        dropout: share of a block's inner activations that is dropped in training, at least 0 and below 1.
        time_dim: size of the sinusoidal time embedding; even, at least 4.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        pred_horizon: int,
        num_train_timesteps: int = 100,
        members: int = 8,
        width: int = 256,
        inner: int = 256,
        blocks: int = 2,
        dropout: float = 0.1,
        time_dim: int = 128,
    ) -> None:
        for name, value, least in (("width", width, 1), ("inner", inner, 1), ("blocks", blocks, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}: expected at least {least}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}: expected at least 0 and below 1")
        super().__init__(num_train_timesteps, members, time_dim)
        self.layers = nn.Sequential(
            EnsembleLinear(members, pred_horizon * action_dim + obs_dim + time_dim, width),
            *(_Residual(members, width, inner, dropout) for _ in range(blocks)),
            EnsembleLayerNorm(members, width),
            Mish(),
            EnsembleLinear(members, width, pred_horizon * action_dim),
        )


def _joined(noisy_actions: Tensor, time: Tensor, obs: Tensor) -> Tensor:
    """A network's input (B, features); ``time`` (B, time_dim) is gathered from a table: no 64 sines per sample."""
    return torch.cat([noisy_actions.flatten(1), obs, time], dim=-1)


def _check_widths(hidden_dims: Sequence[int]) -> None:
    if any(hidden < 1 for hidden in hidden_dims):
        raise ValueError(f"hidden_dims is {list(hidden_dims)}: expected widths of at least 1")
