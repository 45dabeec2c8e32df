"""The one rollout loop: validation, evaluation, recording, collection and RL's evaluation all run it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from envs.episodes import episode_generator, episode_seed
from envs.messages import Capture, Reply, Trajectory
from envs.pool import EnvPool

_NOTHING = Capture()
# Requests per worker that may still be under way when the agent decides. Two keep a worker busy meanwhile; more would
# split the decisions into smaller batches, each of which costs about as much (docs/simulation.md).
_UNDER_WAY = 2


@dataclass(frozen=True)
class Episode:
    """One episode, as its agent sees it."""

    index: int
    seed: int  # of its initial state
    rng: np.random.Generator  # the episode's own: its draws do not depend on the number of workers


class Agent(Protocol):
    """Chooses action chunks. It may keep state per episode, by ``Episode.index``."""

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """Chunks (B, pred_horizon, action_dim) float32 for ``obs`` (B, obs_dim) float32 of B running episodes."""


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went."""

    index: int
    seed: int
    success: bool
    length: int  # env steps
    total_reward: float
    first_obs: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))  # (D,), of the initial state
    frames: list[np.ndarray] | None = None  # (H, W, 3) uint8 each
    trajectory: Trajectory | None = None
    model_file: str | None = None  # where a trajectory was captured


@dataclass
class _Run:
    """An episode under way in one environment."""

    episode: Episode
    replies: list[Reply] = field(default_factory=list)

    def result(self) -> EpisodeResult:
        first, *chunks = self.replies
        trajectories = [chunk.trajectory for chunk in chunks if chunk.trajectory is not None]
        frames = [frame for reply in self.replies for frame in reply.frames or ()]
        return EpisodeResult(
            index=self.episode.index,
            seed=self.episode.seed,
            success=chunks[-1].is_success,
            length=sum(chunk.env_steps for chunk in chunks),
            total_reward=sum(chunk.reward for chunk in chunks),
            first_obs=first.obs,
            frames=frames if first.frames is not None else None,
            trajectory=_join(trajectories) if trajectories else None,
            model_file=first.model_file,
        )


def _join(parts: list[Trajectory]) -> Trajectory:
    names = ("states", "observations", "actions", "rewards")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Trajectory(**joined, last_observation=parts[-1].last_observation)


def run_episodes(
    agent: Agent,
    pool: EnvPool,
    seed: int,
    indices: Iterable[int],
    capture: Capture = _NOTHING,
    on_result: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Run the episodes ``indices`` of an evaluation with ``seed``, each from its own initial state.

    Every index is run exactly once, to its end: at any number of environments the initial states are the same, and
    short episodes are not preferred. The agent decides for many environments in one batch: it waits for answers until
    the workers are about to have nothing to do.

    Args:
        agent: chooses actions.
        pool: stays open, and its workers warm, also when this function raises.
        seed: of the evaluation; episode ``i`` starts at ``envs.episodes.episode_seed(seed, i)``.
        indices: distinct numbers of episodes.
        capture: what the results hold beside the outcome.
        on_result: called with each result as it comes, in no fixed order.

    Returns:
        One result per index, in the order of ``indices``.
    """
    order = list(indices)
    waiting = iter(order)
    runs: dict[int, _Run] = {}
    results: dict[int, EpisodeResult] = {}

    def begin(i: int) -> None:
        index = next(waiting, None)
        if index is not None:
            episode = Episode(index, episode_seed(seed, index), episode_generator(seed, index))
            runs[i] = _Run(episode)
            pool.reset(i, episode.seed, capture)

    try:
        for i in range(pool.n_envs):
            begin(i)
        ready: list[int] = []
        while runs:
            for i, reply in pool.wait():
                run = runs[i]
                run.replies.append(reply)
                if reply.terminated or reply.truncated:
                    result = results[run.episode.index] = run.result()
                    del runs[i]
                    begin(i)
                    if on_result is not None:
                        on_result(result)
                else:
                    ready.append(i)
            if ready and len(runs) - len(ready) <= _UNDER_WAY * pool.n_workers:
                obs = np.stack([runs[i].replies[-1].obs for i in ready])
                chunks = agent.act(obs, [runs[i].episode for i in ready])
                for i, chunk in zip(ready, chunks, strict=True):
                    pool.step(i, chunk, capture)
                ready = []
    except BaseException:
        pool.discard()
        raise
    return [results[index] for index in order]
