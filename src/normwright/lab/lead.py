"""Who leads a comparison at one batch size, and whether that is a win: the one rule, which all words follow.

The highest is the normaliser with the highest mean test metric, among those of which most seeds finished. It
is the winner only where the seeds tell it from every other; no winner is named for one of these reasons, of
which the first that holds is given:

    diverged   every run diverged
    chance     the mean accuracy of the highest is not above what guessing gets
    alone      only one normaliser was compared
    seeds      fewer than three seeds of the highest finished: no interval, or one that says next to nothing
    level      another is not shown to be lower

Guessing gets the share p of the commonest class at most, and on n test samples by luck up to
p + 1.96·√(p(1 − p)/n). It is known for accuracy alone.

Another is lower where the whole 95 % interval of the difference, paired by seed, lies above zero (Student's t
over the seeds). An interval without width comes of the same few samples in every seed, and not of certainty:
there the difference must be above 1.96/√n, which no n samples leave open. One of which a single seed finished
has lost by diverging. As the winner must be told from the nearest of the others too, that there are several
pairs does not make a chance winner likelier than one pair does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from normwright.lab.intervals import mean_interval
from normwright.lab.records import Interval, Lead, Row

DIVERGED, CHANCE, ALONE, SEEDS, LEVEL = "diverged", "chance", "alone", "seeds", "level"
LEAST_SEEDS = 3

# Of a normal distribution, 95 % lie within so many deviations.
_DEVIATIONS = 1.96

SeedMetrics = Mapping[str, Mapping[int, float]]
"""A measure by normaliser and seed, of the runs that have one."""


@dataclass(frozen=True)
class Guessing:
    """What accuracy a network gets that has learned nothing.

    Args:
        share: of the commonest class in the test set.
        samples: of the test set.
    """

    share: float
    samples: int

    @property
    def most(self) -> float:
        """What it gets by luck."""
        return self.share + _DEVIATIONS * math.sqrt(self.share * (1 - self.share) / self.samples)


def guessing(labels: Tensor) -> Guessing:
    """Of a test set with these labels, (N,).

    Example:
        >>> import torch
        >>> guessing(torch.tensor([0, 1, 1, 2])).share
        0.5
    """
    return Guessing(int(labels.unique(return_counts=True)[1].max()) / len(labels), len(labels))


def lead(rows: Sequence[Row], tests: SeedMetrics, chance: Guessing | None) -> Lead:
    """Who leads, and why it is not a win where it is none.

    Args:
        rows: of one batch size, at least one.
        tests: the test metric of each of their finished runs.
        chance: None for a metric of which it is not known.
    """
    size = rows[0].batch_size
    alive = [row for row in rows if row.test is not None]
    if not alive:
        return Lead(size, None, None, (), DIVERGED)
    best = max(alive, key=lambda row: (finished(row), mean_test(row)))
    level = tuple(
        row.norm
        for row in alive
        if row is not best and not _is_lower(tests[row.norm], tests[best.norm], chance)
    )
    doubt = _doubt(rows, best, level, chance)
    return Lead(size, best.norm, None if doubt else best.norm, level, doubt)


def _doubt(rows: Sequence[Row], best: Row, level: Sequence[str], chance: Guessing | None) -> str:
    """Why there is no winner; "" where there is one."""
    if chance is not None and mean_test(best) <= chance.most:
        return CHANCE
    if len(rows) == 1:
        return ALONE
    if finished(best) < LEAST_SEEDS:
        return SEEDS
    return LEVEL if level else ""


def _is_lower(other: Mapping[int, float], best: Mapping[int, float], chance: Guessing | None) -> bool:
    if len(other) < 2 <= len(best):
        return True
    difference = mean_interval([best[seed] - other[seed] for seed in best if seed in other])
    if difference is None or difference.low is None or difference.high is None:
        return False
    if _has_no_width(difference):
        return chance is not None and difference.mean > _DEVIATIONS / math.sqrt(chance.samples)
    return difference.low > 0


def _has_no_width(interval: Interval) -> bool:
    """But for the rounding of the differences."""
    assert interval.low is not None
    return interval.mean - interval.low <= 1e-9 * abs(interval.mean)


def mean_test(row: Row) -> float:
    """The mean test metric of a row of which a seed finished."""
    assert row.test is not None
    return row.test.mean


def finished(row: Row) -> int:
    """How many seeds of it finished."""
    return 0 if row.test is None else row.test.count
