"""Actors and critics in the noise space, in the shape stable-baselines3's ``SACPolicy`` expects.

SB3 scales actions to [-1, 1] before it stores them; everything here speaks that scaled noise u = w / action_magnitude.
"""

import itertools
import math
from typing import Any, Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import nn
from torch.nn import functional as F

from dsrl.fused_adam import FusedAdam

ActorKind = Literal["squashed", "prior"]


class SquashedActor(Actor):
    """SB3's tanh-squashed Gaussian, with LayerNorm after each hidden layer as an option.

    Its mean starts as w = 0: noise that is arbitrary but constant would start it below the frozen policy.
    """

    def __init__(self, *args: Any, layer_norm: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.latent_pi = _hidden(self.features_dim, self.net_arch, self.activation_fn, layer_norm)
        _start_near_zero(self.mu)

    def sample(self, obs: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled noise (B, A) for standard normal ``eps`` (B, A), and its log probability (B, 1)."""
        mean, log_std, _ = self.get_action_dist_params(obs)
        action = torch.tanh(torch.addcmul(mean, log_std.exp(), eps))
        gaussian = -0.5 * (eps.pow(2).sum(dim=1, keepdim=True) + eps.shape[1] * math.log(2 * math.pi))
        # The change of variables: the scale's, and the tanh's with SB3's epsilon.
        change = (log_std + torch.log(1 + 1e-6 - action.pow(2))).sum(dim=1, keepdim=True)
        return action, gaussian - change


class PriorActor(Actor):
    """Unsquashed Gaussian u = scale (m(s) + sigma(s) eps) that starts as the scaled prior, u = scale eps.

    In place of the log probability it returns KL(actor || prior) in closed form, so that SAC's entropy bonus and its
    automatic coefficient become a pull towards the prior: with ``target_entropy = -K`` the coefficient
    holds the KL at K.

    Args:
        prior_scale: standard deviation of the prior in scaled units, s0 / action_magnitude; a buffer, so that it is
            saved with the weights.
    """

    prior_scale: torch.Tensor

    def __init__(self, *args: Any, layer_norm: bool = False, prior_scale: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("prior_scale", torch.tensor(float(prior_scale)))
        self.latent_pi = _hidden(self.features_dim, self.net_arch, self.activation_fn, layer_norm)
        _start_near_zero(self.mu)
        _start_near_zero(self.log_std)

    def get_action_dist_params(self, obs: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Mean and log standard deviation (B, A), in units of the prior's standard deviation."""
        mean, log_std, extra = super().get_action_dist_params(obs)
        return mean, log_std.clamp(-3.0, 1.0), extra

    def sample(self, obs: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled noise (B, A) for standard normal ``eps`` (B, A), and KL(actor || prior) (B, 1)."""
        mean, log_std, _ = self.get_action_dist_params(obs)
        action = (self.prior_scale * (mean + log_std.exp() * eps)).clamp(-1.0, 1.0)
        kl = 0.5 * (mean.pow(2) + (2 * log_std).exp() - 1 - 2 * log_std).sum(dim=1, keepdim=True)
        return action, kl

    def forward(self, obs: Any, deterministic: bool = False) -> torch.Tensor:
        mean, log_std, _ = self.get_action_dist_params(obs)
        eps = torch.zeros_like(mean) if deterministic else torch.randn_like(mean)
        return (self.prior_scale * (mean + log_std.exp() * eps)).clamp(-1.0, 1.0)

    def action_log_prob(self, obs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        mean, _, _ = self.get_action_dist_params(obs)
        action, kl = self.sample(obs, torch.randn_like(mean))
        return action, kl[:, 0]


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
        actor_kind: ``squashed`` (DSRL-SAC, DSRL-NA) or ``prior`` (starts as, and is held near, scaled Gaussian noise).
        prior_scale: see ``PriorActor``.
        layer_norm: LayerNorm in actor and critics.
        noise_critic: add a second ensemble, Q^W, beside Q^A (DSRL-NA).
        average_actor: keep an average of the actor's weights too (``SteeringSAC`` moves it); it is what ``predict``
            and ``SteeredAgent`` play.
    """

    critic: EnsembleCritic  # type: ignore[assignment]
    critic_target: EnsembleCritic  # type: ignore[assignment]
    actor: SquashedActor | PriorActor

    def __init__(
        self,
        *args: Any,
        actor_kind: ActorKind = "squashed",
        prior_scale: float = 0.5,
        layer_norm: bool = False,
        noise_critic: bool = False,
        average_actor: bool = False,
        **kwargs: Any,
    ) -> None:
        self.actor_kind = actor_kind
        self.prior_scale = prior_scale
        self.layer_norm = layer_norm
        self.has_noise_critic = noise_critic
        self.has_average_actor = average_actor
        super().__init__(*args, **{"optimizer_class": FusedAdam, **kwargs})

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        if self.has_noise_critic:
            self.noise_critic = self.make_critic()
            self.noise_critic.optimizer = self.optimizer_class(
                self.noise_critic.parameters(),
                lr=lr_schedule(1),  # type: ignore[call-arg]
                **self.optimizer_kwargs,
            )
        if self.has_average_actor:
            self.average_actor = self.make_actor()
            self.average_actor.load_state_dict(self.actor.state_dict())
            self.average_actor.requires_grad_(False)

    @property
    def played_actor(self) -> Any:
        """The actor that is judged, kept and played: the average of the learner's, where there is one."""
        return self.average_actor if self.has_average_actor else self.actor

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        return self.played_actor(observation, deterministic)

    def set_prior_scale(self, prior_scale: float) -> None:
        """Let a ``prior`` actor start as scaled noise of this standard deviation, in scaled units."""
        for actor in (self.actor, self.played_actor):
            assert isinstance(actor, PriorActor)
            actor.prior_scale.fill_(prior_scale)

    @property
    def action_dim(self) -> int:
        """Components of the noise, H*A."""
        return get_action_dim(self.action_space)

    @property
    def action_magnitude(self) -> float:
        """Bound of every component of the noise."""
        assert isinstance(self.action_space, spaces.Box)
        return float(self.action_space.high[0])

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        if self.actor_kind == "prior":
            return PriorActor(layer_norm=self.layer_norm, prior_scale=self.prior_scale, **kwargs).to(self.device)
        return SquashedActor(layer_norm=self.layer_norm, **kwargs).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> EnsembleCritic:  # type: ignore[override]
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return EnsembleCritic(layer_norm=self.layer_norm, **kwargs).to(self.device)


def _start_near_zero(head: nn.Module | nn.Parameter) -> None:
    assert isinstance(head, nn.Linear)
    nn.init.uniform_(head.weight, -1e-3, 1e-3)
    nn.init.zeros_(head.bias)


def _hidden(inputs: int, sizes: list[int], activation: type[nn.Module], layer_norm: bool) -> nn.Sequential:
    norms: list[type[nn.Module]] = [nn.LayerNorm] if layer_norm else []
    return nn.Sequential(*create_mlp(inputs, -1, sizes, activation, post_linear_modules=norms))
