"""What an episode of an evaluation draws from: functions of the evaluation's seed and the episode's number alone."""

import numpy as np


def _episode_entropy(seed: int, index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, index))


def episode_seed(seed: int, index: int) -> int:
    """The 32-bit seed of the initial state of episode ``index`` of an evaluation with ``seed``."""
    return int(_episode_entropy(seed, index).generate_state(1)[0])


def episode_generator(seed: int, index: int) -> np.random.Generator:
    """The episode's own source of noise: the same for any number of workers, independent of its ``episode_seed``."""
    return np.random.default_rng(_episode_entropy(seed, index).spawn(1)[0])
