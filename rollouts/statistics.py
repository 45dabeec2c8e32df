"""Intervals for success rates."""

import math
from statistics import NormalDist


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for the success probability behind ``successes`` out of ``n`` episodes.

    Formula: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Raises:
        ValueError: not 0 <= successes <= n with n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n} episodes")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    center = p + z * z / (2 * n)
    margin = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((center + sign * margin) / (1 + z * z / n) for sign in (-1, 1))
    # Exactly, not up to rounding.
    return 0.0 if successes == 0 else low, 1.0 if successes == n else high
