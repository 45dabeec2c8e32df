"""SAC for the noise space, on stable-baselines3's ``SAC``, with an update loop that never waits for the device.

The update is stock SAC's: same losses on the same batch and noise (``tests/test_dsrl_fast_update.py``). It is run
differently: all minibatches and all noise of a train call are drawn at once, the critics are one batched ensemble, the
actor's loss is not backpropagated into the critics' weights, optimisers and Polyak averaging are fused, and losses stay
on the device until somebody reads them.
"""

import math
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from torch.nn import functional as F

from common.compilation import COMPILE_MODES, Compilation
from dsrl.fused_adam import FusedAdam
from dsrl.networks import SteeringPolicy
from dsrl.replay import ChunkReplayBuffer

# Everything with matrix products in it; backward passes are compiled along with what they belong to.
COMPILED = ("td_target", "critic_loss", "actor_loss")
# Rebuilt, or kept in the run's state: not part of SB3's archive.
UNSAVED = ("weights", "generator", "sums", "counts", "demonstrations")


class SteeringSAC(SAC):
    """SAC whose actions are diffusion noise; with a ``prior`` actor, prior-regularised SAC.

    Args beyond SB3's:
        pessimism: how the actor's loss values an ensemble: None takes the smallest of the critics, as SAC does; a
            number b takes mean - b * standard deviation.
        target_pessimism: the same for the TD targets, where a bias adds up over the episode.
        value_range: bounds of what a state can be worth; TD targets are clamped to it.
        entropy_in_target: keep SAC's entropy (or KL) term in the critics' targets.
        ent_coef_lr: learning rate of an automatic entropy coefficient; None: that of the networks. The networks' is
            slow for it: from .1 to 1 in 8,000 updates at best.
        ent_coef_bounds: least and greatest value of an automatic coefficient. With a ``prior`` actor the lower one
            turns the KL target into an upper bound: the actor leaves the prior only as far as the critics' differences
            are worth it.
        actor_delay: critic updates per actor update.
        actor_tau: rate of the average of the actor's weights, per update of the actor; for a policy that keeps one.
        compile_losses: off, or ``torch.compile`` of targets and losses: kernels, or replayed as CUDA graphs.
    """

    policy: SteeringPolicy  # type: ignore[assignment]
    replay_buffer: ChunkReplayBuffer  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        pessimism: float | None = None,
        target_pessimism: float | None = None,
        value_range: tuple[float, float] = (-float("inf"), float("inf")),
        entropy_in_target: bool = True,
        ent_coef_lr: float | None = None,
        ent_coef_bounds: tuple[float, float] = (0.0, float("inf")),
        actor_delay: int = 1,
        actor_tau: float | None = None,
        compile_losses: Compilation = "off",
        **kwargs: Any,
    ) -> None:
        self.pessimism = pessimism
        self.target_pessimism = target_pessimism
        self.value_range = value_range
        self.entropy_in_target = entropy_in_target
        self.ent_coef_lr = ent_coef_lr
        self.ent_coef_bounds = ent_coef_bounds
        self.actor_delay = actor_delay
        self.actor_tau = actor_tau
        self.compile_losses: Compilation = compile_losses
        self.demonstrations: ChunkReplayBuffer | None = None
        self.demonstration_fraction: float | None = None
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.log_ent_coef is not None:
            rate = self.lr_schedule(1) if self.ent_coef_lr is None else self.ent_coef_lr
            self.ent_coef_optimizer = FusedAdam([self.log_ent_coef], lr=rate)  # type: ignore[list-item]
            low, high = self.ent_coef_bounds
            self.log_ent_coef_bounds = (math.log(low) if low > 0 else -math.inf, math.log(high))
        # Walking through a network for its parameters takes longer than moving them.
        self.weights: dict[str, list[torch.Tensor]] = {
            name: list(network.parameters()) for name, network in self.policy.named_children()
        }
        self.generator = torch.Generator(self.device).manual_seed(self.seed or 0)
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        if self.compile_losses != "off":
            for name in COMPILED:
                compiled = torch.compile(getattr(self, name), mode=COMPILE_MODES[self.compile_losses], dynamic=False)
                setattr(self, name, compiled)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *UNSAVED, *COMPILED]

    def act(self, obs: np.ndarray, eps: np.ndarray) -> np.ndarray:
        """The actor's draw at standard normal ``eps`` (n, A): scaled noise (n, A) in [-1, 1], as the buffer stores it,
        for normalised observations (n, D)."""
        tensors = [torch.as_tensor(part, dtype=torch.float32, device=self.device) for part in (obs, eps)]
        with torch.no_grad():
            return self.policy.actor.sample(*tensors)[0].cpu().numpy()

    def stored_action(self, scaled_noise: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        """What the buffer keeps of a step: here the scaled noise (n, A), not the chunks (n, H, A) it was decoded to."""
        return scaled_noise

    def add_demonstrations(self, buffer: ChunkReplayBuffer, fraction: float | None) -> None:
        """Let ``fraction`` of every minibatch come from ``buffer`` (one column); None: its share of all transitions."""
        self.demonstrations, self.demonstration_fraction = buffer, fraction

    def train(self, gradient_steps: int, batch_size: int = 256, train_actor: bool = True) -> None:
        """``gradient_steps`` updates of the critics, and of the actor unless ``train_actor`` is False."""
        data = self.batches(gradient_steps, batch_size)
        shape = (2, gradient_steps, batch_size, self.policy.action_dim)
        eps = torch.randn(shape, generator=self.generator, device=self.device)
        for step in range(gradient_steps):
            batch = tuple(part[step] for part in data)
            update_actor = train_actor and (self._n_updates + step) % self.actor_delay == 0
            self.update(batch, eps[0, step], eps[1, step], update_actor)
        self._n_updates += gradient_steps

    def batches(self, n: int, batch_size: int) -> list[torch.Tensor]:
        """``n`` minibatches in one draw: obs, actions, next_obs, dones, rewards, discounts, each (n, batch_size, .)."""
        share = self._demonstrated(batch_size)
        parts = [self._draw(self.replay_buffer, n, batch_size - share)]
        if self.demonstrations is not None and share > 0:
            parts.append(self._draw(self.demonstrations, n, share))
        return [torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)]

    def _demonstrated(self, batch_size: int) -> int:
        """How many transitions of each of a train call's minibatches come from the demonstrations."""
        if self.demonstrations is None:
            return 0
        if self.demonstration_fraction is None:
            # As in one draw from both buffers; rounded, a small share would never be drawn.
            demonstrated = self.demonstrations.size()
            rest = self.replay_buffer.size() * self.replay_buffer.n_envs
            n = int(self.replay_buffer.rng.binomial(batch_size, demonstrated / (demonstrated + rest)))
        else:
            n = round(self.demonstration_fraction * batch_size)
        return min(n, batch_size - 1)

    def _draw(self, buffer: ChunkReplayBuffer, n: int, size: int) -> list[torch.Tensor]:
        data = buffer.gather(*buffer.draw(n * size, self.replay_buffer.rng))
        return [part.view(n, size, -1) for part in data if part is not None]

    def update(self, batch: tuple[torch.Tensor, ...], eps: torch.Tensor, next_eps: torch.Tensor, actor: bool) -> None:
        """One update on (obs, actions, next_obs, dones, rewards, discounts), given the noise of both actor passes."""
        obs, actions, next_obs, dones, rewards, discounts = batch
        if self.compile_losses == "cuda_graphs":
            torch.compiler.cudagraph_mark_step_begin()  # nothing that a graph gave in the last update is read any more
        coef = self.coefficient()
        self._update_critic(obs, actions, self.td_target(next_obs, next_eps, rewards, dones, discounts, coef))
        if actor:
            loss, penalty, q_pi = self.actor_loss(obs, eps, coef)
            self.policy.actor.optimizer.zero_grad()
            # Only the actor's own gradients are computed: the critics' would be thrown away.
            loss.backward(inputs=self.weights["actor"])
            self.policy.actor.optimizer.step()
            if self.actor_tau is not None:
                _follow(self.weights["average_actor"], self.weights["actor"], self.actor_tau)
            if self.ent_coef_optimizer is not None:
                self._update_coefficient(penalty.detach())
            self._log(actor_loss=loss, q_pi=q_pi, penalty=penalty.mean(), ent_coef=coef)
        _follow(self.weights["critic_target"], self.weights["critic"], self.tau)

    def actor_critic(self) -> Any:
        """The critics over noise that the actor climbs."""
        return self.policy.critic

    def coefficient(self) -> torch.Tensor:
        """The entropy (or KL) coefficient, without gradient."""
        if self.log_ent_coef is None:
            return self.ent_coef_tensor
        return self.log_ent_coef.detach().exp()

    def next_action(self, next_obs: torch.Tensor, next_eps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The actor's next action, in the space of the target critics, and its penalty."""
        return self.policy.actor.sample(next_obs, next_eps)

    @torch.no_grad()
    def td_target(
        self,
        next_obs: torch.Tensor,
        next_eps: torch.Tensor,
        rewards: torch.Tensor,
        dones: torch.Tensor,
        discounts: torch.Tensor,
        coef: torch.Tensor,
    ) -> torch.Tensor:
        """Targets (B, 1) of the critics."""
        action, penalty = self.next_action(next_obs, next_eps)
        next_q = aggregate(self.policy.critic_target.values(next_obs, action), self.target_pessimism)
        if self.entropy_in_target:
            next_q = next_q - coef * penalty
        return (rewards + (1 - dones) * discounts * next_q).clamp(*self.value_range)

    def actor_loss(
        self, obs: torch.Tensor, eps: torch.Tensor, coef: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The actor's loss, its penalty (B, 1) and the mean value of its noise."""
        actions, penalty = self.policy.actor.sample(obs, eps)
        q = aggregate(self.actor_critic().values(obs, actions), self.pessimism)
        return (coef * penalty - q).mean(), penalty, q.mean()

    def critic_loss(
        self, obs: torch.Tensor, actions: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The critics' loss against targets (B, 1), and their mean value."""
        values = self.policy.critic.values(obs, actions)
        return 0.5 * len(values) * F.mse_loss(values, target.expand_as(values)), values.mean()

    def _update_critic(self, obs: torch.Tensor, actions: torch.Tensor, target: torch.Tensor) -> None:
        loss, q_data = self.critic_loss(obs, actions, target)
        self.policy.critic.optimizer.zero_grad()
        loss.backward()
        self.policy.critic.optimizer.step()
        self._log(critic_loss=loss, q_data=q_data)

    def _update_coefficient(self, penalty: torch.Tensor) -> None:
        assert self.log_ent_coef is not None
        assert self.ent_coef_optimizer is not None
        # The gradient of SB3's loss, -(log_ent_coef * (penalty + target_entropy)).mean().
        self.log_ent_coef.grad = -(penalty + float(self.target_entropy)).mean().expand_as(self.log_ent_coef).clone()
        self.ent_coef_optimizer.step()
        with torch.no_grad():
            self.log_ent_coef.clamp_(*self.log_ent_coef_bounds)

    @torch.no_grad()
    def _log(self, **values: torch.Tensor) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read_statistics(self) -> dict[str, float]:
        """Means of losses and values since the last call: the only place where the host waits for the device."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


@torch.no_grad()
def _follow(average: list[torch.Tensor], online: list[torch.Tensor], tau: float) -> None:
    """Polyak's step: ``average`` moves towards ``online`` by ``tau``."""
    torch._foreach_lerp_(average, online, tau)


def aggregate(values: torch.Tensor, pessimism: float | None) -> torch.Tensor:
    """One value (B, 1) from an ensemble's (E, B, 1): the smallest, or mean - pessimism * standard deviation."""
    if pessimism is None:
        return values.min(dim=0).values
    return values.mean(dim=0) - pessimism * (values.var(dim=0, correction=0) + 1e-8).sqrt()
