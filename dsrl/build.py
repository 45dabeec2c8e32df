"""From settings to a learner."""

import re
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from common.errors import UserError
from dsrl.config import DSRLConfig, LearnerConfig
from dsrl.learner import SteeringSAC
from dsrl.networks import SteeringPolicy
from dsrl.noise_aliasing import NoiseAliasingSAC
from dsrl.replay import ChunkReplayBuffer
from envs.noise_space import RewardKind

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def value_range(reward: RewardKind, gamma: float, pred_horizon: int) -> tuple[float, float]:
    """Bounds of a discounted return: per chunk, -1 for ever is -1 / (1 - gamma)."""
    if reward == "sparse":
        return 0.0, 1.0
    worst = -1.0 if reward == "per_chunk" else -float(pred_horizon)
    return worst / max(1.0 - gamma, 1e-6), 0.0


def policy_kwargs(config: LearnerConfig, action_magnitude: float) -> dict[str, Any]:
    """``SteeringPolicy``'s options."""
    return {
        "net_arch": list(config.hidden_sizes),
        "activation_fn": ACTIVATIONS[config.activation],
        "n_critics": config.n_critics,
        "layer_norm": config.layer_norm,
        "actor_kind": "prior" if config.algorithm == "prior" else "squashed",
        "prior_scale": (config.prior_scale or 1.0) / action_magnitude,
        "noise_critic": config.algorithm == "na",
        "average_actor": config.actor_tau is not None,
    }


def build_learner(config: DSRLConfig, venv: Any, device: str | torch.device = "cpu") -> SteeringSAC:
    """A fresh learner for ``venv``, a ``NoiseSpaceVecEnv``. DSRL-NA still needs its decoder (``set_decoder``)."""
    learner = config.learner
    low, high = value_range(config.env.reward, learner.gamma, venv.chunk_shape[0])
    bounded = learner.algorithm == "prior"
    kwargs: dict[str, Any] = {
        "learning_rate": learner.learning_rate,
        "buffer_size": learner.buffer_size,
        "batch_size": learner.batch_size,
        "tau": learner.tau,
        "gamma": learner.gamma,
        "ent_coef": learner.ent_coef,
        "target_entropy": -learner.kl_target if bounded else learner.target_entropy,
        "replay_buffer_class": ChunkReplayBuffer,
        "replay_buffer_kwargs": {"n_steps": learner.n_steps, "gamma": learner.gamma, "seed": config.seed},
        "policy_kwargs": policy_kwargs(learner, config.action_magnitude),
        "pessimism": learner.pessimism,
        "target_pessimism": learner.target_pessimism,
        # With entropy in the targets a value may exceed what rewards alone can give.
        "value_range": (-float("inf"), float("inf")) if learner.entropy_in_target else (low, high),
        "entropy_in_target": learner.entropy_in_target,
        "ent_coef_lr": learner.ent_coef_lr,
        "ent_coef_bounds": (
            learner.min_ent_coef,
            float("inf") if learner.max_ent_coef is None else learner.max_ent_coef,
        ),
        "actor_delay": learner.actor_delay,
        "actor_tau": learner.actor_tau,
        "compile_losses": learner.compile_losses,
        "seed": config.seed,
        "device": device,
    }
    if learner.algorithm == "na":
        return NoiseAliasingSAC(SteeringPolicy, venv, distill_steps=learner.distill_steps, **kwargs)
    return SteeringSAC(SteeringPolicy, venv, **kwargs)


def build_policy(config: LearnerConfig, action_magnitude: float, obs_dim: int, action_dim: int) -> SteeringPolicy:
    """The networks alone, for inference: ``action_dim`` is the flattened chunk's."""
    observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
    action_space = spaces.Box(-action_magnitude, action_magnitude, (action_dim,), np.float32)
    return SteeringPolicy(
        observation_space, action_space, lambda _: config.learning_rate, **policy_kwargs(config, action_magnitude)
    )


def check_config(config: DSRLConfig) -> None:
    """Refuse settings that cannot work.

    Raises:
        UserError: which one, and what is expected.
    """
    learner, evaluation = config.learner, config.evaluation
    positive: dict[str, float | None] = {
        "--action_magnitude": config.action_magnitude,
        "--ddim_steps": config.ddim_steps,
        "--utd": config.utd,
        "--learner.batch_size": learner.batch_size,
        "--learner.n_critics": learner.n_critics,
        "--learner.n_steps": learner.n_steps,
        "--learner.kl_target": learner.kl_target,
        "--learner.learning_rate": learner.learning_rate,
        "--learner.ent_coef_lr": learner.ent_coef_lr,
        "--learner.max_ent_coef": learner.max_ent_coef,
        "--learner.actor_delay": learner.actor_delay,
        "--learner.distill_steps": learner.distill_steps,
        "--learner.buffer_size": learner.buffer_size,
        "--initial_steps": config.initial_steps,
        "--evaluation.every": evaluation.every,
        "--evaluation.episodes": evaluation.episodes,
        "--evaluation.constant_episodes": evaluation.constant_episodes,
    }
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise UserError(f"{name} is {value}; it must be > 0.")
    not_negative: dict[str, float | None] = {
        "--seed": config.seed,
        "--train_steps": config.train_steps,
        "--warm_start.critic_updates": config.warm_start.critic_updates,
        "--learner.min_ent_coef": learner.min_ent_coef,
        "--learner.pessimism": learner.pessimism,
        "--learner.target_pessimism": learner.target_pessimism,
        "--learner.kl_open_steps": learner.kl_open_steps,
        "--evaluation.report_episodes": evaluation.report_episodes,
        "--evaluation.constant_candidates": evaluation.constant_candidates,
    }
    for name, given in not_negative.items():
        if given is not None and not given >= 0:
            raise UserError(f"{name} is {given}; it must be >= 0.")
    shares = {"--learner.gamma": learner.gamma, "--learner.tau": learner.tau, "--learner.actor_tau": learner.actor_tau}
    for name, share in shares.items():
        if share is not None and not 0 < share <= 1:
            raise UserError(f"{name} is {share}; it must be in (0, 1].")
    if not learner.hidden_sizes or min(learner.hidden_sizes) < 1:
        raise UserError(f"--learner.hidden_sizes is {learner.hidden_sizes}; give layers of 1 or more, e.g. [256, 256].")
    demonstrations = config.demonstrations
    if demonstrations.fraction is not None and not 0 <= demonstrations.fraction < 1:
        raise UserError(f"--demonstrations.fraction is {demonstrations.fraction}; it must be in [0, 1).")
    if demonstrations.first < 0 or (demonstrations.n is not None and demonstrations.n < 1):
        raise UserError(
            f"--demonstrations.n is {demonstrations.n} and --demonstrations.first is {demonstrations.first}; "
            "give at least 1, from 0 on."
        )
    scales = config.warm_start.noise_scales
    if not scales or min(scales) <= 0:
        raise UserError(f"--warm_start.noise_scales is {scales}; give scales > 0, e.g. [1.0].")
    correlations = [*config.warm_start.noise_correlations, learner.noise_correlation]
    if not config.warm_start.noise_correlations or not all(0 <= rho <= 1 for rho in correlations):
        raise UserError(
            f"--warm_start.noise_correlations is {config.warm_start.noise_correlations} and "
            f"--learner.noise_correlation {learner.noise_correlation}; give correlations from 0 to 1, e.g. [0.0]."
        )
    _check_coefficient(learner)
    candidates = scales if learner.prior_scale is None else [learner.prior_scale]
    if learner.algorithm == "prior" and not 0 < max(candidates) < config.action_magnitude:
        raise UserError(
            f"the prior's scale {max(candidates)} (--learner.prior_scale, or the largest of --warm_start.noise_scales) "
            f"must lie between 0 and --action_magnitude {config.action_magnitude}, where the Gaussian is cut off. "
            "Three times the scale leaves it whole."
        )


def _check_coefficient(learner: LearnerConfig) -> None:
    text = str(learner.ent_coef)
    number = re.fullmatch(r"auto|(auto_)?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text)
    if not number or (number[1] and float(text.removeprefix("auto_")) == 0):
        raise UserError(
            f"--learner.ent_coef is {learner.ent_coef}; give a number >= 0, auto, or auto_<start> from a start > 0: "
            "auto_0.1."
        )
    if learner.max_ent_coef is not None and not learner.min_ent_coef <= learner.max_ent_coef:
        raise UserError(
            f"--learner.min_ent_coef is {learner.min_ent_coef} and --learner.max_ent_coef {learner.max_ent_coef}; "
            "the lower bound must not be above the upper one."
        )
