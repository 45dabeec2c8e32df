"""The settings of a DSRL run: dataclasses whose fields are flags, YAML keys and what an archive holds."""

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace

from common.errors import UserError
from common.number_types import NonNegativeInt, PositiveFloat, PositiveInt
from dsrl.learners import DEFAULT, LEARNERS, LearnerConfig, learner_named
from dsrl.noise_space import RewardKind

LogFormat = Literal["tensorboard", "json", "log", "stdout"]  # as stable-baselines3's logger names them


@dataclass
class EnvConfig:
    """Environment and reward.

    Args:
        n_envs: parallel environments; null: as many as this process may use CPUs.
        horizon: environment steps per episode; null: the task's.
        reward: sparse: 1 at success; per_chunk: -1 per chunk until success; per_step: -1 per step, summed.
        time_limit_terminal: store time limits as terminal states (the authors' convention) instead of bootstrapping.
    """

    n_envs: PositiveInt | None = None
    horizon: PositiveInt | None = None
    reward: RewardKind = "per_chunk"
    time_limit_terminal: bool = False


@dataclass
class WarmStartConfig:
    """What happens before the actor acts.

    Args:
        noise_scales: these are dealt evenly to the warm start's episodes: each plays w ~ s N(0, I), cut at the
            magnitude.
        critic_updates: updates of the critics alone after the warm start.
    """

    noise_scales: list[PositiveFloat] = field(default_factory=lambda: [1.0, 0.7, 0.5])
    critic_updates: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if not self.noise_scales:
            raise UserError("--warm_start.noise_scales is []; give scales > 0, e.g. [1.0].")


@dataclass
class DemonstrationsConfig:
    """Demonstrations beside the run's own transitions in the replay buffer.

    Args:
        path: Robomimic file, the base's own, or a list of files; null: none.
        n: how many are taken of each file, from the first on; null: all.
        every_offset: chunks that begin at every env step, in place of those that follow one another from the first:
            as many times more as a chunk has actions.
        fraction: their share of every minibatch, below 1; null: drawn like all other transitions.
    """

    path: str | list[str] | None = None
    n: PositiveInt | None = None
    every_offset: bool = False
    fraction: float | None = None

    @property
    def paths(self) -> list[Path]:
        """The files; none without demonstrations."""
        named = [self.path] if isinstance(self.path, str) else self.path or []
        return [Path(each) for each in named]

    def __post_init__(self) -> None:
        if self.path in ("", []):
            raise UserError("--demonstrations.path (--dataset) names no file: give one, a list, or leave it out.")
        if self.fraction is not None and not 0 <= self.fraction < 1:
            raise UserError(f"--demonstrations.fraction is {self.fraction}; it must be in [0, 1).")


@dataclass
class EvalConfig:
    """Evaluation during and after training, each on its own episodes; constants are chosen on the selection ones.

    Args:
        every: environment steps between evaluations; each also saves the run's state.
        episodes: episodes per evaluation and actor (mean, draw); they select sac_best.
        report_episodes: episodes of the final report for the steered policy and each baseline; 0: no report.
        constant_candidates: at most so many constant noises are searched for the best one, a baseline; 0: without it.
        constant_steps: env steps of that search; null: as many as the run took.
    """

    every: PositiveInt = 10_000
    episodes: PositiveInt = 50
    report_episodes: NonNegativeInt = 200
    constant_candidates: NonNegativeInt = 0
    constant_steps: PositiveInt | None = None


@dataclass
class DSRLConfig:
    """A whole run; what ``config.yaml`` in its folder holds.

    Args:
        task: lift, can, square, tool_hang or transport; the checkpoint's own by default.
        action_magnitude: bound of every component of the noise. For a prior learner three or more times its scale.
        ddim_steps: denoising steps per chunk; null: the policy's own.
        initial_steps: env steps of the warm start, played by the frozen policy.
        train_steps: env steps after it.
        utd: updates per chunk.
        seed: of networks, episodes and draws.
        learner: networks and updates.
        env: environment and reward.
        warm_start: what happens before the actor acts.
        demonstrations: demonstrations in the replay buffer.
        evaluation: evaluation during and after training.

    Raises:
        UserError: settings that do not go together.
    """

    task: str | None = None
    action_magnitude: PositiveFloat = 3.0
    ddim_steps: PositiveInt | None = None
    initial_steps: PositiveInt = 10_000
    train_steps: NonNegativeInt = 100_000
    utd: PositiveInt = 5
    seed: NonNegativeInt = 0
    learner: LearnerConfig = field(default_factory=LEARNERS[DEFAULT].config_type)
    env: EnvConfig = field(default_factory=EnvConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        if type(self.learner) is not (its := learner_named(self.learner.algorithm).config_type):
            raise UserError(
                f"--learner.algorithm is {self.learner.algorithm}, with the settings of another: expected "
                f"{its.__name__}, found {type(self.learner).__name__}. On a command line --learner.algorithm names it."
            )
        self.learner.check(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of ``config_from_dict``."""
        return json.loads(json.dumps(asdict(self)))


def add_settings(parser: ArgumentParser, algorithm: str) -> None:
    """Give ``parser`` a flag for every setting of a run with the learner ``algorithm``.

    Raises:
        UserError: there is no such learner.
    """
    parser.add_class_arguments(DSRLConfig, as_group=False, skip={"learner"})
    parser.add_class_arguments(learner_named(algorithm).config_type, "learner")


def parsed_settings(parser: ArgumentParser, parsed: Namespace) -> tuple[DSRLConfig, dict[str, Any]]:
    """The settings among what a parser of ``add_settings`` parsed, and the values of its other arguments."""
    values = vars(parser.instantiate(parsed))
    names = [each.name for each in fields(DSRLConfig)]
    config = DSRLConfig(**{name: _plain(values[name]) for name in names})
    return config, {name: value for name, value in values.items() if name not in names}


def config_from_dict(values: dict[str, Any]) -> DSRLConfig:
    """Read settings that ``DSRLConfig.to_dict`` gave, as strictly as a command line is read.

    Raises:
        UserError: unknown or missing keys, or values that cannot be.
    """
    learner = values.get("learner")
    algorithm = learner.get("algorithm", DEFAULT) if isinstance(learner, dict) else DEFAULT
    parser = _StrictParser()
    add_settings(parser, algorithm)
    return parsed_settings(parser, parser.parse_object(values))[0]


def _plain(value: Any) -> Any:
    """``value`` with Python's own numbers: jsonargparse's restricted ones are classes that no safe loader reads."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _plain(getattr(value, each.name)) for each in fields(value)})
    if isinstance(value, list):
        return [_plain(each) for each in value]
    for number in (int, float):
        if isinstance(value, number) and not isinstance(value, bool):
            return number(value)
    return value


class _StrictParser(ArgumentParser):  # type: ignore[misc]
    """Parser of values that no user typed."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(message)
