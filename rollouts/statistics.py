"""Intervals for success rates."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for the success probability behind ``successes`` out of ``n`` episodes.

    Formula: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Raises:
        ValueError: not 0 <= successes <= n with n >= 1.
    """
    from scipy.stats import binomtest  # half a second, which commands that count nothing need not wait for

    interval = binomtest(successes, n).proportion_ci(confidence, "wilson")
    return float(interval.low), float(interval.high)


def seeds_interval(rates: Sequence[float], episodes: Sequence[int], confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the expected success of a recipe, of which ``rates`` are the training seeds' success rates.

    Student's t over the seeds, which holds what differs between them and the chance of their episodes. Where the seeds
    happen to agree it would be narrower than the episodes alone allow: it always covers Wilson's of all of them.

    Raises:
        ValueError: fewer than two seeds.
    """
    if len(rates) < 2 or len(rates) != len(episodes):
        raise ValueError(f"{len(rates)} success rates and {len(episodes)} numbers of episodes: expected two or more")
    from scipy.special import stdtrit

    low, high = wilson_interval(
        sum(round(r * n) for r, n in zip(rates, episodes, strict=True)), sum(episodes), confidence
    )
    margin = float(stdtrit(len(rates) - 1, 0.5 + confidence / 2)) * stdev(rates) / math.sqrt(len(rates))
    return max(0.0, min(low, fmean(rates) - margin)), min(1.0, max(high, fmean(rates) + margin))
