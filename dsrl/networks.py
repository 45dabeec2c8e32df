"""Critics in the noise space, and what holds them and an actor in the shape stable-baselines3's ``SACPolicy`` expects.

SB3 scales actions to [-1, 1] before it stores them; everything here speaks that scaled noise u = w / action_magnitude.
"""

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import nn
from torch.nn import functional as F


class EnsembleCritic(BaseModel):
    """All critics as one stack of batched matrix products: fewer and larger kernels, fewer parameters to step.

    Args:
        net_arch: hidden sizes.
        n_critics: E, members of the ensemble; each is initialised like ``nn.Linear``.
        layer_norm: normalise each hidden layer (without learned scale) before its activation.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        sizes = [features_dim + int(action_space.shape[0]), *net_arch, 1]
        self.n_critics = n_critics
        self.layer_norm = layer_norm
        self.activation = activation_fn()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(sizes):
            bound = 1 / math.sqrt(fan_in)
            self.weights.append(nn.Parameter(torch.empty(n_critics, fan_in, fan_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(n_critics, 1, fan_out).uniform_(-bound, bound)))

    def values(self, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Q values (E, B, 1) of observations (B, D) and actions (B, A)."""
        x = torch.cat([obs, actions], dim=1).expand(self.n_critics, -1, -1)
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for hidden_weight, hidden_bias in hidden:
            x = torch.baddbmm(hidden_bias, x, hidden_weight)
            x = self.activation(F.layer_norm(x, x.shape[-1:]) if self.layer_norm else x)
        # A matrix product with one column is far slower than the dot products it stands for, and so is its gradient.
        return torch.linalg.vecdot(x, weight.mT).unsqueeze(-1) + bias

    def forward(self, obs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """E tensors (B, 1), the form stock SAC reads."""
        return tuple(self.values(obs, actions).unbind(0))


class SteeringPolicy(SACPolicy):
    """SAC's actor and critics for the noise space.

    Args:
        actor_type: the learner's actor; it has ``sample(obs, eps)``.
        actor_options: its own options.
        layer_norm: LayerNorm in actor and critics.
        average_actor: keep an average of the actor's weights too (``SteeringSAC`` moves it); it is what ``predict``
            and ``SteeredAgent`` play.
    """

    critic: EnsembleCritic  # type: ignore[assignment]
    critic_target: EnsembleCritic  # type: ignore[assignment]
    actor: Any

    def __init__(
        self,
        *args: Any,
        actor_type: Callable[..., Actor],
        actor_options: Mapping[str, Any] | None = None,
        layer_norm: bool = False,
        average_actor: bool = False,
        **kwargs: Any,
    ) -> None:
        self.actor_type = actor_type
        self.actor_options = dict(actor_options or {})
        self.layer_norm = layer_norm
        self.has_average_actor = average_actor
        super().__init__(*args, **{"optimizer_kwargs": {"fused": True}, **kwargs})

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        if self.has_average_actor:
            self.average_actor = copy.deepcopy(self.actor).requires_grad_(False)
            del self.average_actor.optimizer

    def make_optimizer(self, network: nn.Module, lr_schedule: Any) -> torch.optim.Optimizer:
        """An optimiser like those of the actor and the critics."""
        return self.optimizer_class(network.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    @property
    def played_actor(self) -> Any:
        """The actor that is judged, kept and played: the average of the learner's, where there is one."""
        return self.average_actor if self.has_average_actor else self.actor

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        return self.played_actor(observation, deterministic)

    @property
    def noise_critic_ensemble(self) -> EnsembleCritic:
        """The critics over noise: what the actor climbs, and what candidates are chosen by."""
        return self.critic

    @property
    def action_dim(self) -> int:
        """Components of the noise, H*A."""
        return get_action_dim(self.action_space)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return self.actor_type(layer_norm=self.layer_norm, **self.actor_options, **kwargs).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> EnsembleCritic:  # type: ignore[override]
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return EnsembleCritic(layer_norm=self.layer_norm, **kwargs).to(self.device)


@torch.no_grad()
def best_draw(
    networks: SteeringPolicy, actor: Any, obs: torch.Tensor, eps: torch.Tensor, pessimism: float | None
) -> torch.Tensor:
    """Of an actor's K draws per observation the one that the critics value most.

    Args:
        networks: hold the critics.
        actor: draws; one of the networks' own.
        obs: (B, D), normalised.
        eps: (B, K, A), standard normal.
        pessimism: see ``aggregate``.

    Returns:
        Scaled noise (B, A).
    """
    n, k, _ = eps.shape
    if k == 1:
        return actor.sample(obs, eps[:, 0])[0]
    repeated = obs.repeat_interleave(k, dim=0)
    draws, _ = actor.sample(repeated, eps.flatten(0, 1))
    values = aggregate(networks.noise_critic_ensemble.values(repeated, draws), pessimism)
    return draws.view(n, k, -1)[torch.arange(n, device=obs.device), values.view(n, k).argmax(dim=1)]


def aggregate(values: torch.Tensor, pessimism: float | None) -> torch.Tensor:
    """One value (B, 1) from an ensemble's (E, B, 1): the smallest, or mean - pessimism * standard deviation."""
    if pessimism is None:
        return values.min(dim=0).values
    return values.mean(dim=0) - pessimism * (values.var(dim=0, correction=0) + 1e-8).sqrt()


def start_near_zero(head: nn.Module | nn.Parameter) -> None:
    """Let a linear layer give almost zero, and still pass gradients on."""
    assert isinstance(head, nn.Linear)
    nn.init.uniform_(head.weight, -1e-3, 1e-3)
    nn.init.zeros_(head.bias)


def hidden_layers(inputs: int, sizes: list[int], activation: type[nn.Module], layer_norm: bool) -> nn.Sequential:
    """``sizes`` of linear layers with their activations, normalised before these if asked."""
    norms: list[type[nn.Module]] = [nn.LayerNorm] if layer_norm else []
    return nn.Sequential(*create_mlp(inputs, -1, sizes, activation, post_linear_modules=norms))
