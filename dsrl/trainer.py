"""The training loop: warm start, critics alone, then acting and learning side by side."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.provenance import changed_settings, flat
from datamodules.hdf5 import DatasetFile
from dsrl.agent import SteeredAgent
from dsrl.archive import (
    BEST,
    LAST,
    Steering,
    check_fits,
    read_parameters,
    read_run_state,
    read_steering,
    write_archive,
)
from dsrl.config import DSRLConfig, LogFormat
from dsrl.learners import learner_named
from dsrl.noise_space import ChunkVecEnv, NoiseSpaceVecEnv, value_range
from dsrl.output import Metrics, Row, Terminal
from dsrl.prefill import demonstration_buffer, read_transitions
from envs.episodes import episode_seed
from envs.pool import EnvPool
from policies.storage import fingerprint
from rollouts.decoder import FrozenDecoder
from rollouts.evaluation import evaluate_agent

# A resumed run may be made longer, or report on more episodes; everything else would make it another run.
# Files of demonstrations may lie elsewhere: their content is compared.
MAY_CHANGE = (
    "train_steps",
    "demonstrations.path",
    "evaluation.report_episodes",
    "evaluation.constant_candidates",
    "evaluation.constant_steps",
)
LOGS_PER_EVALUATION = 5


def stream_seed(seed: int, stream: int) -> int:
    """A seed for one purpose of a run: 0 training episodes, 1 selection, 2 report, 3 the trainer's own draws."""
    return int(np.random.SeedSequence((seed, 7_919, stream)).generate_state(1)[0])


class Trainer:
    """One DSRL run in one folder.

    Args:
        policy: the frozen ``DiffusionPolicy`` (or a toy with its ``decode``, ``normalize_obs``, ``spec``).
        pool: simulator workers that train.
        config: all settings.
        folder: gets ``sac_last.zip`` (with the run's state), ``sac_best.zip``, ``metrics.csv``, TensorBoard.
        resume: go on from ``sac_last.zip``.
        device: of the learner and the policy.
        judges: workers that evaluate, with more environments each, so that a decision serves many at once; None:
            those that train. What an episode comes to does not depend on them.
        log_formats: of stable-baselines3's logger, beside ``metrics.csv`` and the terminal.
        kept_noise: folder of the noise of demonstrations that was found before; None: it is looked for.

    Raises:
        UserError: settings that cannot work, or a state to go on from that does not fit them.
    """

    def __init__(
        self,
        policy: Any,
        pool: EnvPool,
        config: DSRLConfig,
        folder: Path,
        resume: bool = False,
        device: str = "cpu",
        judges: EnvPool | None = None,
        log_formats: Sequence[LogFormat] = ("tensorboard",),
        kept_noise: Path | None = None,
    ) -> None:
        self.log_formats = log_formats
        self.policy, self.pool, self.config, self.folder = policy, pool, config, folder
        self.judges = judges or pool
        self.decoder = FrozenDecoder(policy, config.ddim_steps)
        train_seed = stream_seed(config.seed, 0)
        self.chunks = ChunkVecEnv(
            pool,
            policy.chunk_shape[0],
            lambda k: episode_seed(train_seed, k),
            config.env.reward,
            config.env.time_limit_terminal,
        )
        self.venv = NoiseSpaceVecEnv(
            self.chunks, self.decoder.decode, self.decoder.normalize_obs, config.action_magnitude
        )
        possible = value_range(config.env.reward, config.learner.gamma, policy.chunk_shape[0])
        learner = learner_named(config.learner.algorithm)
        self.learner = learner(config.learner, self.venv, self.decoder, possible, config.seed, device)
        self.rng = np.random.default_rng(stream_seed(config.seed, 3))
        self.noise_shape = (pool.n_envs, int(np.prod(policy.chunk_shape)))
        self.base_fingerprint = fingerprint(policy)
        self.demonstrations_sha256 = _sha256(config.demonstrations.paths)
        self.env_steps = self.saved = 0
        self.episodes = 0
        self.warm: dict[str, list[int]] = {}
        self.clipped = [0, 0]
        self.best: tuple[float, float] = (-1.0, 0.0)
        self.best_at: int | None = None  # env steps of the best; unknown to states from before 30 November 2026
        self.seconds = dict.fromkeys(("wall", "simulation", "decoding", "updates", "evaluation"), 0.0)
        self.rows: list[Row] = []
        if resume:
            self._resume(folder / LAST)
        if config.demonstrations.paths:
            self.learner.kept_noise = kept_noise
            self._add_demonstrations()
        self.recent: deque[tuple[bool, int]] = deque(maxlen=50)
        self.noise_rms: list[float] = []

    @property
    def total_steps(self) -> int:
        """Environment steps of the whole run, warm start included."""
        return self.config.initial_steps + self.config.train_steps

    def run(self) -> None:
        """Train to the end. Killed at any moment, a new ``Trainer(resume=True)`` goes on from the last evaluation."""
        self.terminal = Terminal(self.total_steps)
        self.metrics = Metrics(self.folder, self.terminal, self.rows, self.log_formats)
        self.tick = time.perf_counter()
        try:
            self._run()
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or SIGTERM of a cluster
            kept = (self.folder / LAST).is_file()
            saved = f"saved at {self.saved:,} env steps: --resume goes on there" if kept else "nothing was saved yet"
            self.terminal.say(f"stopped at {self.env_steps:,} env steps; {saved}")
            raise
        finally:  # also after Ctrl-C: the terminal gets its cursor back
            self.metrics.close()

    def _run(self) -> None:
        self.obs = self.venv.reset()
        if self.env_steps > 0:
            self.terminal.update(self.env_steps, self.recent, self.learner._n_updates)
            ended = ": that is the end, by --train_steps" if self.env_steps >= self.total_steps else ""
            self.terminal.say(f"resumed at {self.env_steps:,} env steps{ended}")
        else:
            self._warm_start()
            self._evaluate_and_save()
        every = self.config.evaluation.every
        while self.env_steps < self.total_steps:
            before = self.env_steps
            self.learner.at_step(before - self.config.initial_steps)
            n_envs, dim = self.noise_shape
            eps = self.rng.standard_normal((n_envs, self.config.learner.candidates, dim))
            self._step(self.learner.act(self.obs, eps), train=True)
            if self.env_steps // every > before // every or self.env_steps >= self.total_steps:
                self._evaluate_and_save()
            elif self.env_steps * LOGS_PER_EVALUATION // every > before * LOGS_PER_EVALUATION // every:
                self._log({})

    def _add_demonstrations(self) -> None:
        """Fill the learner's second buffer. It is not saved: the same files and policy give it again on resume."""
        settings, spec = self.config.demonstrations, self.policy.spec
        shape, reward = self.policy.chunk_shape, self.config.env.reward
        n, every_offset = settings.n, settings.every_offset
        data = read_transitions(settings.paths, spec.obs_dims, shape, reward, n, every_offset, spec.env_args)
        actions = self.learner.demonstrated_actions(data)
        buffer = demonstration_buffer(data, actions, self.decoder, self.learner.replay_buffer)
        self.learner.add_demonstrations(buffer, settings.fraction)

    def _warm_start(self) -> None:
        """``initial_steps`` environment steps of the frozen policy with Gaussian noise, then the critics alone."""
        scale, choices = self.venv.scale, self.config.warm_start.noise_scales
        deck = _dealt(choices, self.rng)
        chosen = np.array([next(deck) for _ in range(self.venv.num_envs)])
        while self.env_steps < self.config.initial_steps:
            noise = chosen[:, None] * self.rng.standard_normal(self.noise_shape)
            cut = scale.cut(noise)
            self.clipped[0] += int((cut != noise).sum())
            self.clipped[1] += noise.size
            for i, success in self._step(scale.scaled(cut).astype(np.float32), train=False):
                self.warm.setdefault(f"{chosen[i]:g}", []).append(int(success))
                chosen[i] = next(deck)
        begun = {name: list(successes) for name, successes in self.warm.items()}
        for each in chosen:  # what is under way has not succeeded; the quick ones alone would flatter their scale
            begun.setdefault(f"{each:g}", []).append(0)
        for name, successes in sorted(self.warm.items()):
            rate, n_episodes = np.mean(successes), len(successes)
            self.terminal.say(f"warm start, w ~ {name} N(0, I): success {rate:.3f} over {n_episodes} episodes")
        line = self.learner.begin_acting(begun)
        if line is not None:
            self.terminal.say(line)
        share = self.clipped[0] / max(self.clipped[1], 1)
        self.terminal.say(f"warm start: {share:.1%} of the noise components were cut at +-{scale.magnitude:g}")
        remaining = self.config.warm_start.critic_updates
        while remaining > 0:
            with _Timer(self.seconds, "updates"):
                self.learner.train(min(remaining, 100), self.config.learner.batch_size, train_actor=False)
            remaining -= 100

    def _step(self, scaled_noise: np.ndarray, train: bool) -> list[tuple[int, bool]]:
        """Execute one chunk everywhere, learn while the simulator works; (env, success) of the episodes that ended."""
        learner = self.learner
        with _Timer(self.seconds, "decoding"):
            self.venv.step_scaled_async(scaled_noise)
        if train:
            with _Timer(self.seconds, "updates"):
                learner.train(self.config.utd * self.venv.num_envs, self.config.learner.batch_size)
        with _Timer(self.seconds, "simulation"):
            next_obs, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(next_obs, np.ndarray)
        stored_next = next_obs.copy()
        finished = []
        for i in np.flatnonzero(dones):
            stored_next[i] = infos[i]["terminal_observation"]
            finished.append((int(i), bool(infos[i]["is_success"])))
            self.recent.append((finished[-1][1], infos[i]["episode"]["l"]))
            self.episodes += 1
        action = learner.stored_action(scaled_noise, self.venv.chunks)
        learner.replay_buffer.add(self.obs, stored_next, action, rewards, dones, infos)
        self.obs = next_obs
        self.env_steps += sum(info["env_steps"] for info in infos)
        learner.num_timesteps = self.env_steps
        self.noise_rms.append(self.venv.scale.noise(float(np.sqrt(np.mean(scaled_noise**2)))))
        self.terminal.update(self.env_steps, self.recent, learner._n_updates)
        return finished

    def _evaluate_and_save(self) -> None:
        """Both actors on the selection episodes; keep the best; save the state.

        Training episodes under way are cut off here. That makes the state complete without the simulator's: training
        goes on with fresh episodes, after an interruption or without one.
        """
        self.learner.replay_buffer.interrupt()
        row: Row = {}
        scores: dict[str, tuple[float, float]] = {}
        with _Timer(self.seconds, "evaluation"):
            for name in ("deterministic", "stochastic"):
                agent = SteeredAgent(self.learner.policy, self.decoder, self.config.learner, name == "deterministic")
                seed = stream_seed(self.config.seed, 1)
                result = evaluate_agent(agent, self.judges, seed, self.config.evaluation.episodes, show=False)
                rate, length = result.success_rate, result.mean_length
                row[f"eval/{name}_success"], row[f"eval/{name}_length"] = rate, length
                scores[name] = (rate, -length)
        self._log(row)
        self.recent.clear()
        self.obs = self.venv.reset()
        steering = self.steering(scores["deterministic"] >= scores["stochastic"])
        if max(scores.values()) > self.best:
            self.best, self.best_at = max(scores.values()), self.env_steps
        # First the state: where a run ends between the two, the state says that the best is of the same step.
        write_archive(self.folder / LAST, self.learner, steering, self._state())
        self.saved = self.env_steps
        if self.best_at == self.env_steps:
            write_archive(self.folder / BEST, self.learner, steering)

    def _state(self) -> dict[str, Any]:
        """What a run goes on from beside the archive's weights and optimisers."""
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "episodes_begun": self.chunks.episodes_begun - self.pool.n_envs,
            "warm": self.warm,
            "clipped": self.clipped,
            "best": self.best,
            "best_at": self.best_at,
            "seconds": self.seconds,
            "rows": self.metrics.rows,
            "rng": self.rng.bit_generator.state,
            "demonstrations_sha256": self.demonstrations_sha256,
            "learner": self.learner.state(),
        }

    def _resume(self, path: Path) -> None:
        """Go on from the archive at ``path``.

        Raises:
            UserError: a damaged state, one of other settings, of another base policy or other demonstrations.
        """
        steering = read_steering(path)
        check_fits(steering, self.policy, path)
        _check_same_run(steering.config, self.config, path)
        state = read_run_state(path)
        if state["demonstrations_sha256"] != self.demonstrations_sha256:
            raise UserError(
                f"--resume: {path} was trained with other demonstrations than --demonstrations.path "
                f"{self.config.demonstrations.path} holds now. Give the same."
            )
        self.learner.load_parameters(read_parameters(path))
        try:
            self.learner.load_state(state["learner"])
        except (RuntimeError, TypeError) as error:
            raise UserError(
                f"--resume: {path} was not written on a {self.learner.device.type}: give the --device of the run so "
                "far."
            ) from error
        self.rng.bit_generator.state = state["rng"]
        self.learner.num_timesteps = self.env_steps = self.saved = state["env_steps"]
        self.episodes, self.warm, self.clipped = state["episodes"], state["warm"], state["clipped"]
        self.chunks.episodes_begun = state["episodes_begun"]
        self.best, self.best_at = state["best"], state.get("best_at")
        self.seconds, self.rows = state["seconds"], state["rows"]
        best = self.folder / BEST
        kept_at = read_steering(best).env_steps if best.is_file() else None
        at = "" if self.best_at is None else f" after {self.best_at:,} env steps"
        if self.best_at == self.env_steps != kept_at:  # ended between the two files that an evaluation writes
            write_archive(best, self.learner, self.steering(steering.deterministic_is_better))
        elif kept_at is None:
            raise UserError(f"--resume: {best} is gone, the best actor so far{at}: put it back beside {path.name}.")
        elif self.best_at not in (None, kept_at):
            raise UserError(
                f"--resume: {best} is an actor after {kept_at:,} env steps, and the best so far was that{at}: put that "
                f"one back beside {path.name}."
            )

    def steering(self, deterministic_is_better: bool) -> Steering:
        """What the archives say about themselves."""
        spec = self.policy.spec
        return Steering(
            self.config, self.base_fingerprint, spec.task, dict(spec.obs_dims), self.env_steps, deterministic_is_better
        )

    def _log(self, evaluation: Row) -> None:
        now = time.perf_counter()
        self.seconds["wall"] += now - self.tick
        self.tick = now
        row: Row = {"env_steps": self.env_steps, "episodes": self.episodes, "updates": self.learner._n_updates}
        if self.recent:
            row["rollout/success"] = float(np.mean([success for success, _ in self.recent]))
            row["rollout/length"] = float(np.mean([length for _, length in self.recent]))
        if self.noise_rms:
            row["rollout/noise_rms"] = float(np.mean(self.noise_rms))
        self.noise_rms = []
        row.update(evaluation)
        row.update({f"train/{name}": value for name, value in self.learner.read_statistics().items()})
        row.update({f"time/{name}_s": value for name, value in self.seconds.items()})
        acting = self.seconds["wall"] - self.seconds["evaluation"]
        row["time/env_steps_per_s"] = self.env_steps / max(acting, 1e-9)
        row["time/updates_per_s"] = self.learner._n_updates / max(self.seconds["updates"], 1e-9)
        self.metrics.add(row)


def _dealt(choices: Sequence[float], rng: np.random.Generator) -> Iterator[float]:
    """``choices`` for ever, in an order drawn anew for every round, so that each is given as often as the others."""
    while True:
        yield from rng.permutation(choices).tolist()


def _sha256(paths: Sequence[Path]) -> str | None:
    """Of the files' contents, in their order; None without files."""
    digests = []
    for path in paths:
        with DatasetFile(path) as file:
            digests.append(file.sha256)
    return " ".join(digests) or None


def _check_same_run(stored: DSRLConfig, given: DSRLConfig, path: Path) -> None:
    before, now = flat(stored.to_dict()), flat(given.to_dict())
    changed = [key for key in changed_settings(now, before) if key not in MAY_CHANGE]
    if changed:
        listed = ", ".join(f"{key} {before.get(key)!r} -> {now[key]!r}" for key in changed)
        raise UserError(f"--resume: {path} was trained with other settings: {listed}. Give the same ones.")


class _Timer:
    """Adds the seconds of a ``with`` block to one entry of a table."""

    def __init__(self, table: dict[str, float], name: str) -> None:
        self.table, self.name = table, name

    def __enter__(self) -> None:
        self.begin = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.table[self.name] += time.perf_counter() - self.begin
