"""Exploration noise that is correlated from chunk to chunk keeps its distribution and forgets at an episode's end."""

import numpy as np
import pytest

from dsrl.exploration import ChunkNoise

N, A, CHUNKS = 200, 5, 40


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_every_chunk_is_standard_normal_and_correlated_as_asked(correlation: float) -> None:
    noise = ChunkNoise((N, A), np.random.default_rng(0))
    drawn = np.stack([noise.draw(correlation).copy() for _ in range(CHUNKS)])
    assert np.abs(drawn.mean(axis=(1, 2))).max() < 0.15
    assert np.abs(drawn.std(axis=(1, 2)) - 1).max() < 0.1
    assert np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1] == pytest.approx(correlation, abs=0.02)


def test_an_episode_begins_independent_of_the_one_before_and_the_others_go_on() -> None:
    noise = ChunkNoise((N, A), np.random.default_rng(0))
    before = noise.draw(1.0).copy()
    noise.begin(0)
    after = noise.draw(1.0)
    assert not np.allclose(after[0], before[0])
    np.testing.assert_allclose(after[1:], before[1:])
