"""The settings of a DSRL run, as dataclasses that become flags and YAML keys."""

from dataclasses import dataclass, field
from typing import Literal

from common.compilation import Compilation
from envs.noise_space import RewardKind

Algorithm = Literal["prior", "sac", "na"]


@dataclass
class LearnerConfig:
    """Networks and updates.

    Args:
        algorithm: prior: SAC held near scaled Gaussian noise by a KL term; sac: DSRL-SAC; na: DSRL-NA.
        hidden_sizes: hidden layers of actor and critics.
        layer_norm: LayerNorm in actor and critics.
        activation: relu or tanh.
        n_critics: members of the critic ensemble.
        pessimism: in the actor's loss. null: the smallest critic counts; b: mean - b * standard deviation of them.
        target_pessimism: the same in the TD targets.
        gamma: discount per chunk.
        n_steps: chunks per return.
        learning_rate: of all optimisers.
        batch_size: transitions per update.
        tau: Polyak rate of the target critics.
        ent_coef: entropy (prior: KL) coefficient: a number, auto, or auto_<start>.
        ent_coef_lr: learning rate of an automatic coefficient; null: learning_rate.
        min_ent_coef: lower bound of an automatic coefficient.
        max_ent_coef: upper bound of it; null: without one.
        target_entropy: sac, na: target of an automatic coefficient, over the whole chunk.
        entropy_in_target: keep the entropy (KL) term in the critics' targets.
        prior_scale: prior: s0, the noise that the actor starts as is s0 N(0, I). null: the one of
            warm_start.noise_scales with which the warm start succeeded most often.
        kl_target: prior: KL to the prior, in nats, that the coefficient aims at.
        kl_open_steps: prior: environment steps after the warm start over which the KL target opens from 0 to kl_target.
        actor_delay: critic updates per actor update.
        actor_tau: rate of an average of the actor's weights, which is judged and kept in place of the actor that
            collects; null: without one.
        noise_correlation: of the acting actor's draws from chunk to chunk within an episode; 0: independent.
        distill_steps: na: regression steps of Q^W per update.
        buffer_size: chunks in the replay buffer.
        compile_losses: off, or torch.compile of the losses: kernels, or cuda_graphs, for a GPU that waits for launches.
    """

    algorithm: Algorithm = "prior"
    hidden_sizes: list[int] = field(default_factory=lambda: [128, 128])
    layer_norm: bool = True
    activation: Literal["relu", "tanh"] = "relu"
    n_critics: int = 4
    pessimism: float | None = 1.0
    target_pessimism: float | None = 0.5
    gamma: float = 0.99
    n_steps: int = 1
    learning_rate: float = 3e-4
    batch_size: int = 128
    tau: float = 0.005
    ent_coef: str | float = "auto_0.1"
    ent_coef_lr: float | None = None
    min_ent_coef: float = 0.0
    max_ent_coef: float | None = None
    target_entropy: float = 0.0
    entropy_in_target: bool = False
    prior_scale: float | None = None
    kl_target: float = 8.0
    kl_open_steps: int = 0
    actor_delay: int = 1
    actor_tau: float | None = None
    noise_correlation: float = 0.0
    distill_steps: int = 1
    buffer_size: int = 1_000_000
    compile_losses: Compilation = "off"


@dataclass
class EnvConfig:
    """Environment and reward.

    Args:
        n_envs: parallel environments; null: as many as this process may use CPUs.
        horizon: environment steps per episode; null: the task's.
        reward: sparse: 1 at success; per_chunk: -1 per chunk until success; per_step: -1 per step, summed.
        time_limit_terminal: store time limits as terminal states (the authors' convention) instead of bootstrapping.
    """

    n_envs: int | None = None
    horizon: int | None = None
    reward: RewardKind = "per_chunk"
    time_limit_terminal: bool = False


@dataclass
class WarmStartConfig:
    """What happens before the actor acts.

    Args:
        noise_scales: every warm-start episode draws its s from these and plays w ~ s N(0, I), cut at the magnitude.
        noise_correlations: every warm-start episode draws from these how much the noise of a chunk is correlated with
            that of the chunk before; 0: independent, as the frozen policy is judged.
        critic_updates: updates of the critics alone after the warm start.
    """

    noise_scales: list[float] = field(default_factory=lambda: [1.0, 0.7, 0.5])
    noise_correlations: list[float] = field(default_factory=lambda: [0.0])
    critic_updates: int = 0


@dataclass
class DemonstrationsConfig:
    """Demonstrations beside the run's own transitions in the replay buffer.

    Args:
        path: Robomimic file; null: none.
        first: index of the first demonstration taken.
        n: how many are taken; null: all that follow.
        fraction: their share of every minibatch; null: drawn like all other transitions.
    """

    path: str | None = None
    first: int = 0
    n: int | None = None
    fraction: float | None = None


@dataclass
class EvalConfig:
    """Evaluation during and after training, each on its own episodes; constants are chosen on the selection ones.

    Args:
        every: environment steps between evaluations; each also saves the run's state.
        episodes: episodes per evaluation and actor (deterministic, stochastic); they select sac_best.
        report_episodes: episodes of the final report for the steered policy and each baseline; 0: no report.
        constant_candidates: K constant noises among which the best-constant baseline is chosen; 0: without it.
        constant_episodes: episodes per candidate.
    """

    every: int = 10_000
    episodes: int = 50
    report_episodes: int = 200
    constant_candidates: int = 0
    constant_episodes: int = 20


@dataclass
class DSRLConfig:
    """A whole run; what ``config.yaml`` in its folder holds.

    Args:
        task: the task's name.
        action_magnitude: bound of every component of the noise.
        ddim_steps: denoising steps per chunk.
        initial_steps: environment steps of the warm start.
        train_steps: environment steps after it.
        utd: updates per chunk.
        seed: of everything.
    """

    task: str | None
    action_magnitude: float
    ddim_steps: int
    initial_steps: int
    train_steps: int
    utd: int
    seed: int = 0
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
