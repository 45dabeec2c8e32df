"""Noise that is correlated from one chunk to the next, so that exploration does not average itself out."""

import numpy as np


class ChunkNoise:
    """Standard normal noise per environment and chunk, a first-order autoregressive process within an episode.

    One chunk's noise moves the arm little, and independent draws cancel over an episode; correlated ones drift one way
    and show what it is worth. The noise of any single chunk stays N(0, I).

    Args:
        shape: (n, A), environments and components.
        rng: of all draws.
    """

    def __init__(self, shape: tuple[int, int], rng: np.random.Generator) -> None:
        self.rng = rng
        self.shape = shape
        self.last = np.zeros(shape)
        self.fresh = np.ones(shape[0], dtype=bool)

    def draw(self, correlation: np.ndarray | float) -> np.ndarray:
        """The next noise (n, A); ``correlation`` with the one before, per environment (n,) or one for all."""
        rho = np.where(self.fresh, 0.0, correlation)[:, None]
        self.last = rho * self.last + np.sqrt(1.0 - rho**2) * self.rng.standard_normal(self.shape)
        self.fresh[:] = False
        return self.last

    def begin(self, i: int | slice = slice(None)) -> None:
        """A new episode in environment ``i``: its noise does not depend on what was."""
        self.fresh[i] = True
