"""The steered policy: an actor that chooses the noise, a frozen diffusion policy that decodes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from dsrl.archive import STEERING, check_fits, read_steering
from dsrl.learners import LearnerConfig, learner_named
from dsrl.networks import SteeringPolicy, best_draw
from dsrl.noise_space import NoiseScale
from policies.rows import pad_rows
from rollouts.decoder import FrozenDecoder, one_thread
from rollouts.loop import Episode


class SteeredAgent:
    """A ``rollouts.loop.Agent``: SAC's actor picks the noise of each chunk.

    Args:
        networks: the trained networks.
        decoder: the frozen diffusion policy.
        config: its learner's settings: how many draws the critics choose among.
        deterministic: the actor's mean instead of draws from each episode's own generator.
    """

    def __init__(
        self, networks: SteeringPolicy, decoder: FrozenDecoder, config: LearnerConfig, deterministic: bool = True
    ) -> None:
        self.networks = networks
        self.config = config
        self.decoder = decoder
        self.chunk_shape: tuple[int, int] = decoder.policy.chunk_shape
        self.deterministic = deterministic
        self.scale = NoiseScale.of(networks.action_space)

    @property
    def kind(self) -> str:
        """What is played, in a word."""
        return "mean" if self.deterministic else "draw"

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """Chunks (B, H, A) for raw observations (B, D)."""
        return self.decoder.decode(obs, self.noise(obs, episodes))

    def noise(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """The noise (B, H, A) the actor chooses for raw observations (B, D)."""
        shape = (1 if self.deterministic else self.config.candidates, self.chunk_shape[0] * self.chunk_shape[1])
        if self.deterministic:
            eps = np.zeros((len(obs), *shape), dtype=np.float32)
        else:
            eps = np.stack([episode.rng.standard_normal(shape, dtype=np.float32) for episode in episodes])
        arrays = (self.decoder.normalize_obs(obs), eps)
        seen, drawn = (pad_rows(torch.as_tensor(array)).to(self.networks.device) for array in arrays)
        actor, pessimism = self.networks.played_actor, self.config.target_pessimism
        with one_thread():  # threads share out the rows by their number, and round them by their share
            scaled = best_draw(self.networks, actor, seen, drawn, pessimism)
        return self.scale.noise(scaled[: len(obs)]).cpu().numpy().reshape(len(obs), *self.chunk_shape)


def load_steered_agent(
    sac_path: str | Path, policy: Any, ddim_steps: int | None = None, deterministic: bool | None = True
) -> SteeredAgent:
    """Rebuild the steered policy from ``sac_best.zip`` and the policy it was trained on; nothing is unpickled.

    Args:
        sac_path: an archive of ``dsrl``.
        policy: the loaded ``DiffusionPolicy``.
        ddim_steps: None takes the number the actor was trained with.
        deterministic: mean or draw; None takes what evaluated better during training.

    Raises:
        UserError: no such archive, not one of ``dsrl``, or trained on another policy.
    """
    steering = read_steering(sac_path)
    check_fits(steering, policy, sac_path)
    config = steering.config
    scale = NoiseScale(config.action_magnitude)
    learner = learner_named(config.learner.algorithm)
    dims = (policy.spec.feature_dim, int(np.prod(policy.chunk_shape)))
    try:
        networks = learner.networks(config.learner, scale, *dims)
    except RuntimeError as error:  # layers beyond any memory
        raise UserError(f"{sac_path} holds a damaged {STEERING}: {error}") from error
    steering.load_networks(networks, sac_path)
    networks.set_training_mode(False)
    decoder = FrozenDecoder(policy, ddim_steps or config.ddim_steps)
    if deterministic is None:
        deterministic = steering.deterministic_is_better
    return SteeredAgent(networks, decoder, config.learner, deterministic)
