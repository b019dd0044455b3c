"""Means over seeds, with 95 % intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit

from normwright.lab.records import Interval

CONFIDENCE = 0.95


def mean_interval(
    values: Sequence[float], *, least: float = -math.inf, most: float = math.inf
) -> Interval | None:
    """The mean and its interval by Student's t; None for no values, no interval for one.

        mean ± t(0.975, n - 1)·s/√n,  s the sample deviation (n - 1)

    Args:
        values: one per seed.
        least, most: what the mean can be at all; the interval is cut off there, which takes nothing
            from its 95 %.

    Example:
        >>> mean_interval([1.0, 2.0, 3.0])  # doctest: +ELLIPSIS
        Interval(mean=2.0, low=-0.484..., high=4.484..., count=3)
        >>> mean_interval([1.0, 2.0, 3.0], least=0.0).low
        0.0
    """
    count = len(values)
    if count == 0:
        return None
    mean = statistics.fmean(values)
    if count == 1:
        return Interval(mean, None, None, 1)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * statistics.stdev(values) / math.sqrt(count)
    return Interval(mean, max(mean - half, least), min(mean + half, most), count)


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Interval | None:
    """The geometric mean of paired ratios, with the interval of their logarithms' mean.

    Args:
        numerators: above zero, one per seed.
        denominators: above zero, in the same order.
    Example:
        >>> ratio_interval([4.0, 16.0], [2.0, 2.0]).mean
        4.0
    """
    logs = [math.log2(a) - math.log2(b) for a, b in zip(numerators, denominators, strict=True)]
    interval = mean_interval(logs)
    if interval is None or interval.low is None or interval.high is None:
        return interval and Interval(2**interval.mean, None, None, interval.count)
    return Interval(2**interval.mean, _power(interval.low), _power(interval.high), interval.count)


def _power(exponent: float) -> float:
    """2 to the exponent, infinite where that is beyond a float: two seeds far apart say next to nothing."""
    return math.inf if exponent > 1023 else 2.0**exponent
