"""What all learners share: SAC for the noise space, on stable-baselines3's ``SAC``, that never waits for the device.

The update is stock SAC's: same losses on the same batch and noise (``tests/test_dsrl_fast_update.py``). It is run
differently: all minibatches and all noise of a train call are drawn at once, the critics are one batched ensemble, the
actor's loss is not backpropagated into the critics' weights, optimisers and Polyak averaging are fused, and losses stay
on the device until somebody reads them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.sac.policies import Actor
from torch import nn
from torch.nn import functional as F

from common.compilation import COMPILE_MODES, Compilation
from common.errors import UserError
from common.number_types import NonNegativeFloat, PositiveFloat, PositiveInt
from dsrl.networks import SteeringPolicy, aggregate, best_draw
from dsrl.noise_space import NoiseScale
from dsrl.prefill import ChunkTransitions, noise_of
from dsrl.replay import ChunkReplayBuffer
from rollouts.decoder import FrozenDecoder

if TYPE_CHECKING:
    from dsrl.config import DSRLConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
# Everything with matrix products in it; backward passes are compiled along with what they belong to.
COMPILED = ("td_target", "critic_loss", "actor_loss")
# Rebuilt, kept in the run's state, or the frozen policy: not part of SB3's archive.
UNSAVED = ("weights", "generator", "sums", "counts", "demonstrations", "decoder", "kept_noise")
UNBOUNDED = (-math.inf, math.inf)


@dataclass
class LearnerConfig:
    """What all learners have; each adds its own, and its own defaults.

    Args:
        algorithm: prior: SAC held near scaled Gaussian noise by a KL term; sac: DSRL-SAC; na: DSRL-NA. The options
            below are those of the learner named (--learner.algorithm na --help shows DSRL-NA's).
        hidden_sizes: hidden layers of actor and critics.
        layer_norm: LayerNorm in actor and critics.
        activation: relu or tanh.
        n_critics: members of the critic ensemble.
        pessimism: in the actor's loss. null: the smallest critic counts; b: mean - b * standard deviation of them.
        target_pessimism: the same in the TD targets, where a bias adds up over the episode.
        gamma: discount per chunk.
        n_steps: chunks per return.
        learning_rate: of all networks.
        batch_size: transitions per update.
        tau: Polyak rate of the target critics.
        ent_coef: entropy (KL) coefficient: a number, auto, or auto_<start>.
        ent_coef_lr: learning rate of an automatic coefficient; null: learning_rate, which is slow for it.
        min_ent_coef: lower bound of an automatic coefficient. Above 0 it makes a KL target an upper bound: the actor
            leaves the prior only as far as the critics' differences are worth it.
        max_ent_coef: upper bound of it; null: without one.
        entropy_in_target: keep the entropy (KL) term in the critics' targets.
        candidates: K draws of the actor for every chunk, of which the critics choose the one to play, by mean -
            target_pessimism * standard deviation (null: by the smallest); where it collects and where its draws are
            judged. 1: the actor's draw as it is.
        actor_delay: critic updates per actor update.
        actor_tau: rate of an average of the actor's weights, which is judged and kept in place of the actor that
            collects; null: without one.
        buffer_size: chunks in the replay buffer.
        compile_losses: off, or torch.compile of the losses: kernels, or cuda_graphs, for a GPU that waits for launches.
    """

    algorithm: str = ""
    hidden_sizes: list[PositiveInt] = field(default_factory=lambda: [128, 128])
    layer_norm: bool = True
    activation: Literal["relu", "tanh"] = "relu"
    n_critics: PositiveInt = 4
    pessimism: NonNegativeFloat | None = 1.0
    target_pessimism: NonNegativeFloat | None = 0.5
    gamma: PositiveFloat = 0.99
    n_steps: PositiveInt = 1
    learning_rate: PositiveFloat = 3e-4
    batch_size: PositiveInt = 128
    tau: PositiveFloat = 0.005
    ent_coef: str | float = "auto_0.1"
    ent_coef_lr: PositiveFloat | None = None
    min_ent_coef: NonNegativeFloat = 0.0
    max_ent_coef: PositiveFloat | None = None
    entropy_in_target: bool = False
    candidates: PositiveInt = 1
    actor_delay: PositiveInt = 1
    actor_tau: PositiveFloat | None = None
    buffer_size: PositiveInt = 1_000_000
    compile_losses: Compilation = "off"

    def __post_init__(self) -> None:
        for name in ("gamma", "tau", "actor_tau"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise UserError(f"--learner.{name} is {share}; it must be in (0, 1].")
        if not self.hidden_sizes:
            raise UserError("--learner.hidden_sizes is []; give layers, e.g. [256, 256].")
        text = str(self.ent_coef)
        number = re.fullmatch(r"auto|(auto_)?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text)
        if not number or (number[1] and float(text.removeprefix("auto_")) == 0):
            raise UserError(
                f"--learner.ent_coef is {text}; give a number >= 0, auto, or auto_<start> from a start > 0: auto_0.1."
            )
        if self.max_ent_coef is not None and not self.min_ent_coef <= self.max_ent_coef:
            raise UserError(
                f"--learner.min_ent_coef is {self.min_ent_coef} and --learner.max_ent_coef {self.max_ent_coef}; "
                "the lower bound must not be above the upper one."
            )

    def check(self, run: "DSRLConfig") -> None:
        """Refuse settings that do not go together with those of the ``run``, by a ``UserError``."""

    def start_scales(self) -> Sequence[float]:
        """Scales s that the settings name for an actor that starts as s N(0, I)."""
        return []

    @property
    def ent_coef_bounds(self) -> tuple[float, float]:
        """Least and greatest value of an automatic coefficient."""
        return self.min_ent_coef, math.inf if self.max_ent_coef is None else self.max_ent_coef


class SteeringSAC(SAC):
    """SAC whose actions are diffusion noise; base of the learners in this folder.

    A learner names its ``config_type``, its ``actor_type`` (and, with networks of its own, a ``policy_type``) and
    overrides what is particular to it.

    Args:
        config: its settings.
        venv: a ``NoiseSpaceVecEnv``, or any with its spaces.
        decoder: the frozen policy; for learners that decode.
        value_range: bounds of what a state can be worth by rewards alone; TD targets clamp the next state's value to
            them, unless they hold an entropy term as well.
        seed: of weights and draws.
        device: of networks and minibatches.
    """

    config_type: ClassVar[type[LearnerConfig]] = LearnerConfig
    policy_type: ClassVar[type[SteeringPolicy]] = SteeringPolicy
    actor_type: ClassVar[type[Actor]]
    policy: SteeringPolicy  # type: ignore[assignment]
    replay_buffer: ChunkReplayBuffer  # type: ignore[assignment]

    def __init__(
        self,
        config: LearnerConfig,
        venv: Any,
        decoder: FrozenDecoder | None = None,
        value_range: tuple[float, float] = UNBOUNDED,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config = config
        self.decoder: Any = decoder
        self.scale = NoiseScale.of(venv.action_space)
        self.value_range = UNBOUNDED if config.entropy_in_target else value_range
        self.kept_noise: Path | None = None  # folder of the noise of demonstrations that was found before
        self.demonstrations: ChunkReplayBuffer | None = None
        self.demonstration_fraction: float | None = None
        super().__init__(
            self.policy_type,
            venv,
            learning_rate=config.learning_rate,
            buffer_size=config.buffer_size,
            batch_size=config.batch_size,
            tau=config.tau,
            gamma=config.gamma,
            ent_coef=config.ent_coef,
            target_entropy=self.penalty_target(),
            replay_buffer_class=ChunkReplayBuffer,
            replay_buffer_kwargs={"n_steps": config.n_steps, "gamma": config.gamma, "seed": seed},
            policy_kwargs=self.policy_options(config, self.scale),
            seed=seed,
            device=device,
        )

    @classmethod
    def policy_options(cls, config: LearnerConfig, scale: NoiseScale) -> dict[str, Any]:
        """``SteeringPolicy``'s options."""
        return {
            "net_arch": list(config.hidden_sizes),
            "activation_fn": ACTIVATIONS[config.activation],
            "n_critics": config.n_critics,
            "layer_norm": config.layer_norm,
            "actor_type": cls.actor_type,
            "actor_options": cls.actor_options(config, scale),
            "average_actor": config.actor_tau is not None,
        }

    @classmethod
    def actor_options(cls, config: LearnerConfig, scale: NoiseScale) -> dict[str, Any]:
        """Options of ``actor_type`` beside SB3's."""
        return {}

    @classmethod
    def networks(cls, config: LearnerConfig, scale: NoiseScale, obs_dim: int, action_dim: int) -> SteeringPolicy:
        """The networks alone, for inference: ``action_dim`` is the flattened chunk's."""
        observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        action_space = spaces.Box(-scale.magnitude, scale.magnitude, (action_dim,), np.float32)
        options = cls.policy_options(config, scale)
        return cls.policy_type(observation_space, action_space, lambda _: config.learning_rate, **options)

    def penalty_target(self) -> float:
        """What an automatic coefficient aims at: SB3's ``target_entropy``, minus the wanted mean penalty."""
        raise NotImplementedError

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.log_ent_coef is not None:
            rate = self.config.ent_coef_lr or self.config.learning_rate
            self.ent_coef_optimizer = torch.optim.Adam([self.log_ent_coef], lr=rate, fused=True)
        low, high = self.config.ent_coef_bounds
        self.log_ent_coef_bounds = (math.log(low) if low > 0 else -math.inf, math.log(high))
        # Walking through a network for its parameters takes longer than moving them.
        self.weights: dict[str, list[torch.Tensor]] = {
            name: list(network.parameters()) for name, network in self.policy.named_children()
        }
        self.generator = torch.Generator(self.device).manual_seed(self.seed or 0)
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        if self.config.compile_losses != "off":
            for name in COMPILED:
                mode = COMPILE_MODES[self.config.compile_losses]
                setattr(self, name, torch.compile(getattr(self, name), mode=mode, dynamic=False))

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *UNSAVED, *COMPILED]

    def act(self, obs: np.ndarray, eps: np.ndarray) -> np.ndarray:
        """The best of the actor's K draws at standard normal ``eps`` (n, K, A): scaled noise (n, A) in [-1, 1], as the
        buffer stores it, for normalised observations (n, D)."""
        seen, drawn = (torch.as_tensor(part, dtype=torch.float32, device=self.device) for part in (obs, eps))
        return best_draw(self.policy, self.policy.actor, seen, drawn, self.config.target_pessimism).cpu().numpy()

    def stored_action(self, scaled_noise: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        """What the buffer keeps of a step: here the scaled noise (n, A), not the chunks (n, H, A) it was decoded to."""
        return scaled_noise

    def demonstrated_actions(self, demonstrated: ChunkTransitions) -> np.ndarray:
        """What the buffer keeps of demonstrations (N, H*A): here the scaled noise that decodes to their chunks."""
        noise = noise_of(demonstrated, self.decoder, self.scale, self.kept_noise)
        return self.scale.scaled(noise).reshape(len(demonstrated), -1)

    def begin_acting(self, successes: Mapping[str, Sequence[int]]) -> str | None:
        """Called once, after the warm start and before any update.

        Args:
            successes: noise scale, as ``f"{scale:g}"`` -> 1 or 0 for every warm-start episode that began with it; one
                under way has not succeeded.

        Returns:
            A line for the user about how the actor starts, if there is something to say.
        """
        return None

    def at_step(self, env_steps: int) -> None:
        """Called before every acting step, with the env steps since the warm start."""

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
            update_actor = train_actor and (self._n_updates + step) % self.config.actor_delay == 0
            self.update(batch, eps[0, step], eps[1, step], update_actor)
        self._n_updates += gradient_steps

    def batches(self, n: int, batch_size: int) -> list[torch.Tensor]:
        """``n`` minibatches in one draw: obs, actions, next_obs, dones, rewards, discounts, each (n, batch_size, .)."""
        share = self.demonstrated(batch_size)
        parts = [self._draw(self.replay_buffer, n, batch_size - share)]
        if self.demonstrations is not None and share > 0:
            parts.append(self._draw(self.demonstrations, n, share))
        return [torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)]

    def demonstrated(self, batch_size: int) -> int:
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
        if self.config.compile_losses == "cuda_graphs":
            torch.compiler.cudagraph_mark_step_begin()  # nothing that a graph gave in the last update is read any more
        coef = self.coefficient()
        self.update_critic(obs, actions, self.td_target(next_obs, next_eps, rewards, dones, discounts, coef))
        if actor:
            loss, penalty, q_pi = self.actor_loss(obs, eps, coef)
            self.policy.actor.optimizer.zero_grad()
            # Only the actor's own gradients are computed: the critics' would be thrown away.
            loss.backward(inputs=self.weights["actor"])
            self.policy.actor.optimizer.step()
            if self.config.actor_tau is not None:
                _follow(self.weights["average_actor"], self.weights["actor"], self.config.actor_tau)
            if self.ent_coef_optimizer is not None:
                self.update_coefficient(penalty.detach())
            self.log_losses(actor_loss=loss, q_pi=q_pi, penalty=penalty.mean(), ent_coef=coef)
        _follow(self.weights["critic_target"], self.weights["critic"], self.tau)

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
        next_q = aggregate(self.policy.critic_target.values(next_obs, action), self.config.target_pessimism)
        if self.config.entropy_in_target:
            next_q = next_q - coef * penalty
        return rewards + (1 - dones) * discounts * next_q.clamp(*self.value_range)

    def actor_loss(
        self, obs: torch.Tensor, eps: torch.Tensor, coef: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The actor's loss, its penalty (B, 1) and the mean value of its noise."""
        actions, penalty = self.policy.actor.sample(obs, eps)
        q = aggregate(self.policy.noise_critic_ensemble.values(obs, actions), self.config.pessimism)
        return (coef * penalty - q).mean(), penalty, q.mean()

    def critic_loss(
        self, obs: torch.Tensor, actions: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The critics' loss against targets (B, 1), and their mean value."""
        values = self.policy.critic.values(obs, actions)
        return 0.5 * len(values) * F.mse_loss(values, target.expand_as(values)), values.mean()

    def update_critic(self, obs: torch.Tensor, actions: torch.Tensor, target: torch.Tensor) -> None:
        loss, q_data = self.critic_loss(obs, actions, target)
        self.policy.critic.optimizer.zero_grad()
        loss.backward()
        self.policy.critic.optimizer.step()
        self.log_losses(critic_loss=loss, q_data=q_data)

    def update_coefficient(self, penalty: torch.Tensor) -> None:
        assert self.log_ent_coef is not None
        assert self.ent_coef_optimizer is not None
        # The gradient of SB3's loss, -(log_ent_coef * (penalty + target_entropy)).mean().
        self.log_ent_coef.grad = -(penalty + float(self.target_entropy)).mean().expand_as(self.log_ent_coef).clone()
        self.ent_coef_optimizer.step()
        with torch.no_grad():
            self.log_ent_coef.clamp_(*self.log_ent_coef_bounds)

    @torch.no_grad()
    def log_losses(self, **values: torch.Tensor) -> None:
        """Add values to the means that ``read_statistics`` gives."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read_statistics(self) -> dict[str, float]:
        """Means of losses and values since the last call: the only place where the host waits for the device."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means

    def state(self) -> dict[str, Any]:
        """What SB3's archive does not hold and training goes on from, as tensors and plain values."""
        return {
            "generator": self.generator.get_state(),
            "n_updates": self._n_updates,
            "buffer": self.replay_buffer.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``."""
        self.generator.set_state(state["generator"])
        self._n_updates = state["n_updates"]
        self.replay_buffer.load_state(state["buffer"])

    def load_parameters(self, parameters: dict[str, Any]) -> None:
        """Take over weights and optimisers of an archive (``archive.read_parameters``)."""
        variables = parameters["variables"]
        named = {name: values for name, values in parameters.items() if name != "variables"}
        self.set_parameters(named, exact_match=True, device=self.device)
        if self.log_ent_coef is not None:
            with torch.no_grad():
                self.log_ent_coef.copy_(variables["log_ent_coef"])


@torch.no_grad()
def _follow(average: list[torch.Tensor], online: list[torch.Tensor], tau: float) -> None:
    """Polyak's step: ``average`` moves towards ``online`` by ``tau``."""
    torch._foreach_lerp_(average, online, tau)
