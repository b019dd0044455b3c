"""Where samples per second level off, and which batch size is recommended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_LEVEL = 2


@dataclass(frozen=True)
class Rate:
    """Samples per second at one batch size, with the interval of its median."""

    batch_size: int
    value: float
    low: float
    high: float


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of independent values, and an interval that holds the true one 95 times of 100.

    The ends are the k-th smallest and the k-th largest value, k the largest with 2·P(X < k) ≤ 5 %, X
    binomial (n, ½): whatever the distribution, the true median lies below the k-th smallest of n values when
    fewer than k of them fall below it. Fewer than six values have no such interval; theirs is from 0 to ∞.

    Returns:
        (median, low, high).
    References:
        Conover 1999, Practical Nonparametric Statistics, section 3.2.
    Example:
        >>> median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
        (3.5, 1.0, 6.0)
    """
    ordered, count = sorted(values), len(values)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    rank, below = 0, 0
    while True:
        below += math.comb(count, rank)
        if 2 * below > (1 - CONFIDENCE) * 2**count:
            break
        rank += 1
    return (median, ordered[rank - 1], ordered[count - rank]) if rank else (median, 0.0, math.inf)


def rate_of(batch_size: int, seconds: Sequence[float]) -> Rate:
    """Samples per second from the times of steps.

    Example:
        >>> rate_of(8, [0.5, 1.0, 1.0, 1.0, 1.0, 2.0])
        Rate(batch_size=8, value=8.0, low=4.0, high=16.0)
    """
    median, low, high = median_interval(seconds)
    return Rate(batch_size, batch_size / median, batch_size / high, batch_size / low if low else math.inf)


def levelled(rates: Sequence[Rate], tolerance: float) -> bool:
    """Whether two sizes in a row raised the rate by less than the tolerance, by the median and at its best.

        value(size) < (1 + tolerance)·(greatest value before), and the same of high

    Both, because a busy machine slows some steps and quickens none: it can hide a gain in either.

    Args:
        rates: in the order in which they were run.
    Example:
        >>> values = {1: 50.0, 2: 99.0, 4: 100.0, 8: 99.0}
        >>> rates = [Rate(size, value, value, value) for size, value in values.items()]
        >>> levelled(rates[:3], 0.05), levelled(rates, 0.05)
        (False, True)
    """
    if len(rates) <= _LEVEL:
        return False
    return not any(_raises(rates[place], rates[:place], tolerance) for place in range(-_LEVEL, 0))


def _raises(rate: Rate, before: Sequence[Rate], tolerance: float) -> bool:
    return rate.value >= (1 + tolerance) * max(other.value for other in before) or rate.high >= (
        1 + tolerance
    ) * max(other.high for other in before)


def knee(rates: Sequence[Rate], tolerance: float) -> Rate:
    """The smallest size whose rate is at least (1 − tolerance) of the best that was run.

    Example:
        >>> rates = [Rate(16, 80.0, 79.0, 81.0), Rate(32, 96.0, 93.0, 97.0), Rate(64, 100.0, 98.0, 102.0)]
        >>> knee(rates, 0.05).batch_size
        32
    """
    least = (1 - tolerance) * fastest(rates).value
    return min((rate for rate in rates if rate.value >= least), key=lambda rate: rate.batch_size)


def fastest(rates: Sequence[Rate]) -> Rate:
    """The size with the highest rate; of equals the smallest."""
    return max(rates, key=lambda rate: (rate.value, -rate.batch_size))


def undecided(rates: Sequence[Rate], tolerance: float) -> tuple[int, ...]:
    """The other sizes that the knee may be, by the intervals of the rates.

    A smaller size may be it where high(size) ≥ (1 − tolerance)·low(best). A larger one, where the chosen size
    may itself fall short, low(chosen) < (1 − tolerance)·high(best): then the next.

    Example:
        >>> rates = [Rate(16, 80.0, 79.0, 94.0), Rate(32, 96.0, 93.0, 97.0), Rate(64, 100.0, 98.0, 102.0)]
        >>> undecided(rates, 0.05)
        (16, 64)
    """
    best, chosen = fastest(rates), knee(rates, tolerance)
    smaller = [
        rate.batch_size
        for rate in rates
        if rate.batch_size < chosen.batch_size and rate.high >= (1 - tolerance) * best.low
    ]
    larger = sorted(rate.batch_size for rate in rates if rate.batch_size > chosen.batch_size)
    short = chosen is not best and chosen.low < (1 - tolerance) * best.high
    return (*smaller, *(larger[:1] if short else ()))


def reason(rates: Sequence[Rate], tolerance: float, limit: str) -> str:
    """One sentence: why the knee is where it is.

    Args:
        limit: what ended the search while the rate was still rising, or "" where it levelled off.
    """
    best, chosen = fastest(rates), knee(rates, tolerance)
    rising = f"; the rate may rise beyond it, but {limit}" if limit else ""
    if chosen is best:
        return (
            f"it has the most samples per second of all that were run, and no smaller one comes within "
            f"{100 * tolerance:g} % of it{rising}."
        )
    share = f"{100 * chosen.value / best.value:.0f} % of those at {best.batch_size:,}"
    return (
        f"it is the smallest whose samples per second come within {100 * tolerance:g} % of the most that "
        f"were seen ({share}){rising}."
    )
