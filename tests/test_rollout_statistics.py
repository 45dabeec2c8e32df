"""Wilson's interval."""

import numpy as np
import pytest

from rollouts.statistics import wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    # Published values: Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_published_values(successes: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=5e-5)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for p in rng.uniform(0.02, 0.98, 4000):
        low, high = wilson_interval(int(rng.binomial(200, p)), 200)
        inside.append(low <= p <= high)
    assert 0.94 < np.mean(inside) < 0.96


def test_the_ends_of_the_scale() -> None:
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0
    assert wilson_interval(10, 10, 0.99)[0] < wilson_interval(10, 10)[0]


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=r"must (be an integer|not be greater)"):
        wilson_interval(successes, n)
