"""The golden ticket: the best constant noise, found by search and without RL (arXiv 2603.15757)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.pool import EnvPool
from rollouts.decoder import FrozenDecoder
from rollouts.loop import Episode, run_episodes

KEPT = 4  # one candidate in so many goes on to the next round
PROBE = 32  # candidates that show how long an episode is, before the search is laid out


class ConstantNoise:
    """The same w (H, A) at every chunk."""

    def __init__(self, decoder: FrozenDecoder, noise: np.ndarray) -> None:
        self.decoder, self.noise = decoder, noise

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """Chunks (B, H, A) for raw observations (B, D)."""
        return self.decoder.decode(obs, np.broadcast_to(self.noise, (len(obs), *self.noise.shape)).copy())


@dataclass(frozen=True)
class Ticket:
    """What a search found, and what it cost.

    Args:
        noise: (H, A).
        candidates: constant noises that were played.
        env_steps: that the search spent.
    """

    noise: np.ndarray
    candidates: int
    env_steps: int


def search(decoder: FrozenDecoder, pool: EnvPool, seed: int, env_steps: int, candidates: int) -> Ticket:
    """Successive halving over constant noises w ~ N(0, I).

    Every candidate plays an episode; one in ``KEPT`` goes on and plays more of them, until one is left. Every round has
    an equal share of ``env_steps``. They rank by success, then by length, over all their episodes. Every episode has an
    initial state of its own.

    Args:
        decoder: the frozen policy.
        pool: plays; the outcome does not depend on its size.
        seed: of the candidates and the initial states.
        env_steps: budget. It is met on the average, as the length of an episode is known only afterwards; ``Ticket``
            says what was spent.
        candidates: at most so many; fewer where the budget does not let each have its episode in the first round.
    """
    tally = _Tally(decoder, pool, seed, candidates)
    tally.play(np.arange(min(candidates, PROBE, max(1, env_steps // pool.spec.horizon))))
    length = tally.env_steps / tally.played
    fitting = (n for n in range(candidates, 0, -1) if n * length * _rounds(n) <= env_steps)
    alive = np.arange(max(tally.played, next(fitting, 1)))
    share = env_steps / _rounds(len(alive))
    tally.play(alive[tally.played :])
    before = 0
    while True:
        # Those that went on had short episodes, partly by luck: only a round's own tell how many more fit its share.
        spent = tally.env_steps - before
        tally.play(np.repeat(alive, max(0, round(share / spent) - 1)))
        alive = tally.best(alive, math.ceil(len(alive) / KEPT))
        if len(alive) == 1:
            break
        before = tally.env_steps
        tally.play(alive)
    return Ticket(tally.noises[alive[0]], int((tally.episodes > 0).sum()), tally.env_steps)


def _rounds(candidates: int) -> int:
    rounds = 1
    while candidates > KEPT:
        candidates, rounds = math.ceil(candidates / KEPT), rounds + 1
    return rounds


class _Tally:
    """Episodes of every candidate so far; the agent that plays them."""

    def __init__(self, decoder: FrozenDecoder, pool: EnvPool, seed: int, candidates: int) -> None:
        self.decoder, self.pool, self.seed = decoder, pool, seed
        shape = (candidates, *decoder.policy.chunk_shape)
        self.noises = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        self.episodes, self.successes, self.lengths = (np.zeros(candidates) for _ in range(3))
        self.played = 0
        self._playing: dict[int, int] = {}

    def act(self, obs: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """Chunks (B, H, A) of the candidate of each episode."""
        return self.decoder.decode(obs, self.noises[[self._playing[episode.index] for episode in episodes]])

    def play(self, order: Any) -> None:
        """An episode of each candidate in ``order``."""
        self._playing = dict(enumerate(order.tolist(), start=self.played))
        for result in run_episodes(self, self.pool, self.seed, self._playing):
            candidate = self._playing[result.index]
            self.episodes[candidate] += 1
            self.successes[candidate] += result.success
            self.lengths[candidate] += result.length
        self.played += len(order)

    @property
    def env_steps(self) -> int:
        return int(self.lengths.sum())

    def best(self, among: np.ndarray, n: int) -> np.ndarray:
        rate, length = (values[among] / self.episodes[among] for values in (self.successes, self.lengths))
        return among[np.lexsort((length, -rate))[:n]]
