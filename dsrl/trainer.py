"""The training loop: warm start, critics alone, then acting and learning side by side."""

import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from datamodules.hdf5 import DatasetFile
from dsrl.actor import SteeredAgent
from dsrl.archive import Steering, fingerprint, write_archive
from dsrl.build import build_learner, check_config
from dsrl.config import DSRLConfig
from dsrl.demonstrations import demonstration_buffer, find_noise, read_transitions
from dsrl.exploration import ChunkNoise
from dsrl.metrics import MetricsLog, Row
from dsrl.networks import PriorActor
from dsrl.noise_aliasing import NoiseAliasingSAC
from dsrl.progress import ProgressLine
from dsrl.run_state import load_run_state, save_run_state
from envs.episodes import episode_seed
from envs.noise_space import ChunkVecEnv, NoiseSpaceVecEnv
from envs.pool import EnvPool
from rollouts.decoder import FrozenDecoder
from rollouts.evaluation import evaluate_agent

LOGS_PER_EVALUATION = 5


def stream_seed(seed: int, stream: int) -> int:
    """A seed for one purpose of a run: 0 training episodes, 1 selection, 2 report, 3 the trainer's own draws."""
    return int(np.random.SeedSequence((seed, 7_919, stream)).generate_state(1)[0])


class Trainer:
    """One DSRL run in one folder.

    Args:
        policy: the frozen ``DiffusionPolicy`` (or a toy with its ``decode``, ``normalize_obs``, ``spec``).
        pool: simulator workers; the same ones train and evaluate.
        config: all settings.
        folder: gets ``sac_last.zip`` (with the run's state), ``sac_best.zip``, ``metrics.csv``, TensorBoard.
        resume: go on from ``sac_last.zip``.
        device: of the learner and the policy.

    Raises:
        UserError: settings that cannot work, or a state to go on from that does not fit them.
    """

    def __init__(
        self, policy: Any, pool: EnvPool, config: DSRLConfig, folder: Path, resume: bool = False, device: str = "cpu"
    ) -> None:
        check_config(config)
        self.policy, self.pool, self.config, self.folder = policy, pool, config, folder
        self.chunk_shape = policy.chunk_shape
        self.decoder = FrozenDecoder(policy, config.ddim_steps)
        train_seed = stream_seed(config.seed, 0)
        self.chunks = ChunkVecEnv(
            pool,
            self.chunk_shape[0],
            lambda k: episode_seed(train_seed, k),
            config.env.reward,
            config.env.time_limit_terminal,
        )
        self.venv = NoiseSpaceVecEnv(
            self.chunks, self.decoder.decode, self.decoder.normalize_obs, config.action_magnitude
        )
        self.learner = build_learner(config, self.venv, device)
        if isinstance(self.learner, NoiseAliasingSAC):
            self.learner.set_decoder(self._decode_normalized)
        self.rng = np.random.default_rng(stream_seed(config.seed, 3))
        self.exploration = ChunkNoise((pool.n_envs, int(np.prod(self.chunk_shape))), self.rng)
        self.base_fingerprint = fingerprint(policy)
        self.demonstrations_sha256: str | None = None
        if config.demonstrations.path is not None:
            with DatasetFile(Path(config.demonstrations.path)) as file:
                self.demonstrations_sha256 = file.sha256
        self.env_steps = 0
        self.episodes = 0
        self.warm: dict[str, list[int]] = {}
        self.clipped = [0, 0]
        self.best: tuple[float, float] = (-1.0, 0.0)
        self.seconds = dict.fromkeys(("wall", "simulation", "decoding", "updates", "evaluation"), 0.0)
        rows: list[Row] = []
        if resume:
            rows = load_run_state(self, folder / "sac_last.zip")
        if config.demonstrations.path is not None:
            self._add_demonstrations(Path(config.demonstrations.path))
        self.metrics = MetricsLog(folder, rows)
        self.recent: deque[tuple[bool, int]] = deque(maxlen=50)
        self.noise_rms: list[float] = []

    @property
    def total_steps(self) -> int:
        """Environment steps of the whole run, warm start included."""
        return self.config.initial_steps + self.config.train_steps

    def run(self) -> None:
        """Train to the end. Killed at any moment, a new ``Trainer(resume=True)`` goes on from the last evaluation."""
        self.progress = ProgressLine(self.total_steps)
        self.tick = time.perf_counter()
        try:
            self._run()
        finally:  # also after Ctrl-C: the terminal gets its cursor back
            self.metrics.close()
            self.progress.close()

    def _run(self) -> None:
        self.obs = self.venv.reset()
        if self.env_steps == 0:
            self._warm_start()
            self._evaluate_and_save()
        every = self.config.evaluation.every
        while self.env_steps < self.total_steps:
            before = self.env_steps
            self._open_kl_target()
            eps = self.exploration.draw(self.config.learner.noise_correlation)
            self._step(self.learner.act(self.obs, eps), train=True)
            if self.env_steps // every > before // every or self.env_steps >= self.total_steps:
                self._evaluate_and_save()
            elif self.env_steps * LOGS_PER_EVALUATION // every > before * LOGS_PER_EVALUATION // every:
                self._log({})

    def _add_demonstrations(self, path: Path) -> None:
        """Fill the learner's second buffer. It is not saved: the same file and policy give it again on resume."""
        settings, spec = self.config.demonstrations, self.policy.spec
        data = read_transitions(
            path, spec.obs_dims, self.chunk_shape, self.config.env.reward, settings.first, settings.n
        )
        if isinstance(self.learner, NoiseAliasingSAC):
            noise = data.chunks
        else:
            print(f"demonstrations: looking for the noise of {len(data)} chunks", flush=True)
            parts = (torch.as_tensor(part, device=self.learner.device).split(1024) for part in (data.obs, data.chunks))
            found = [
                find_noise(self._decode, obs, chunks, self.config.action_magnitude)
                for obs, chunks in track(list(zip(*parts, strict=True)), "demonstrations", transient=True)
            ]
            all_noise, error = (torch.cat(results) for results in zip(*found, strict=True))
            noise = all_noise.cpu().numpy() / self.config.action_magnitude
            print(
                f"demonstrations: noise found for {len(data)} chunks; they decode to within "
                f"{float(error.median()):.3f} (median), {float(error.quantile(0.9)):.3f} (90 %) of the demonstrated"
            )
        buffer = demonstration_buffer(data, noise.reshape(len(data), -1), self.policy, self.learner.replay_buffer)
        self.learner.add_demonstrations(buffer, settings.fraction)

    def _warm_start(self) -> None:
        """``initial_steps`` environment steps of the frozen policy with Gaussian noise, then the critics alone."""
        n, magnitude = self.venv.num_envs, self.config.action_magnitude
        scales, correlations = self.config.warm_start.noise_scales, self.config.warm_start.noise_correlations
        scale, correlation = self.rng.choice(scales, size=n), self.rng.choice(correlations, size=n)
        explored: dict[str, list[int]] = {}
        while self.env_steps < self.config.initial_steps:
            noise = scale[:, None] * self.exploration.draw(correlation)
            self.clipped[0] += int((np.abs(noise) > magnitude).sum())
            self.clipped[1] += noise.size
            scaled = np.clip(noise / magnitude, -1.0, 1.0).astype(np.float32)
            for i, success in self._step(scaled, train=False):
                # The frozen policy is judged by independent noise; correlated noise only explores.
                table = self.warm if correlation[i] == 0 else explored
                table.setdefault(f"{scale[i]:g}", []).append(int(success))
                scale[i], correlation[i] = self.rng.choice(scales), self.rng.choice(correlations)
        for kind, table in (("", self.warm), (", correlated from chunk to chunk", explored)):
            for name, successes in sorted(table.items()):
                rate, n_episodes = np.mean(successes), len(successes)
                self.progress.say(
                    f"warm start, w ~ {name} N(0, I){kind}: success {rate:.3f} over {n_episodes} episodes"
                )
        self._choose_prior()
        share = self.clipped[0] / max(self.clipped[1], 1)
        self.progress.say(f"warm start: {share:.1%} of the noise components were cut at +-{magnitude:g}")
        remaining = self.config.warm_start.critic_updates
        while remaining > 0:
            with _Timer(self.seconds, "updates"):
                self.learner.train(min(remaining, 100), self.config.learner.batch_size, train_actor=False)
            remaining -= 100

    def _choose_prior(self) -> None:
        """Give a ``prior`` actor the noise scale that served the frozen policy best, unless the settings name one."""
        actor = self.learner.policy.actor
        if isinstance(actor, PriorActor) and self.config.learner.prior_scale is None:
            # Among equals, or where no episode was finished, the widest: it leaves the most to choose from.
            widest = f"{max(self.config.warm_start.noise_scales):g}"
            name = max(self.warm, key=lambda scale: (float(np.mean(self.warm[scale])), float(scale)), default=widest)
            self.learner.policy.set_prior_scale(float(name) / self.config.action_magnitude)
            self.progress.say(f"the actor starts as w ~ {name} N(0, I)")

    def _step(self, scaled_noise: np.ndarray, train: bool) -> list[tuple[int, bool]]:
        """Execute one chunk everywhere, learn while the simulator works; (env, success) of the episodes that ended."""
        learner = self.learner
        with _Timer(self.seconds, "decoding"):
            self.venv.step_async(self.config.action_magnitude * scaled_noise)
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
            self.exploration.begin(int(i))
            self.recent.append((finished[-1][1], infos[i]["episode"]["l"]))
            self.episodes += 1
        action = learner.stored_action(scaled_noise, self.venv.chunks)
        learner.replay_buffer.add(self.obs, stored_next, action, rewards, dones, infos)
        self.obs = next_obs
        self.env_steps += sum(info["env_steps"] for info in infos)
        learner.num_timesteps = self.env_steps
        self.noise_rms.append(float(np.sqrt(np.mean(scaled_noise**2))) * self.config.action_magnitude)
        self.progress.update(self.env_steps, self.recent, learner._n_updates)
        return finished

    def _open_kl_target(self) -> None:
        """The KL target as a function of the steps since the warm start: from 0 to ``kl_target``."""
        settings = self.config.learner
        if settings.algorithm == "prior" and settings.kl_open_steps > 0:
            opened = min(1.0, (self.env_steps - self.config.initial_steps) / settings.kl_open_steps)
            self.learner.target_entropy = -settings.kl_target * opened

    def _evaluate_and_save(self) -> None:
        """Both actors on the selection episodes; keep the best; save the state.

        The workers play the evaluation, so training episodes are cut off here. That also makes the state complete
        without the simulator's: training goes on with fresh episodes, after an interruption or without one.
        """
        self.learner.replay_buffer.interrupt()
        row: Row = {}
        scores: dict[str, tuple[float, float]] = {}
        with _Timer(self.seconds, "evaluation"):
            for name in ("deterministic", "stochastic"):
                agent = SteeredAgent(self.learner.policy, self.decoder, self.chunk_shape, name == "deterministic")
                seed = stream_seed(self.config.seed, 1)
                result = evaluate_agent(agent, self.pool, seed, self.config.evaluation.episodes, show=False)
                rate, length = result.success_rate, result.mean_length
                row[f"eval/{name}_success"], row[f"eval/{name}_length"] = rate, length
                scores[name] = (rate, -length)
                if scores[name] > self.best:
                    self.best = scores[name]
                    write_archive(self.folder / "sac_best.zip", self.learner, self.steering(name == "deterministic"))
        self._log(row)
        self.recent.clear()
        self.obs = self.venv.reset()
        self.exploration.begin()
        steering = self.steering(scores["deterministic"] >= scores["stochastic"])
        save_run_state(self, self.folder / "sac_last.zip", steering)

    def _decode_normalized(self, obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """DSRL-NA's decoder: normalised observations (B, D), noise (B, H*A) -> flattened chunks (B, H*A)."""
        raw = self.policy.obs_normalizer.denormalize(obs)
        return self._decode(raw, noise.view(-1, *self.chunk_shape)).flatten(1)

    def _decode(self, obs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.policy.decode(obs, noise, self.config.ddim_steps)

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
        self.metrics.write()
        self.progress.log(row)


class _Timer:
    """Adds the seconds of a ``with`` block to one entry of a table."""

    def __init__(self, table: dict[str, float], name: str) -> None:
        self.table, self.name = table, name

    def __enter__(self) -> None:
        self.begin = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.table[self.name] += time.perf_counter() - self.begin
