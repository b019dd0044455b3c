"""Who leads a comparison at one batch size, and whether that is a win: the one rule, which all words follow.

The best is the normaliser of which most seeds finished, and of equals the one with the highest mean test
metric. It is the winner only where the seeds tell it from every other; no winner is named for one of these
reasons, of which the first that holds is given:

    diverged     every run diverged
    chance       the mean accuracy of the best is not above what guessing gets
    alone        only one normaliser was compared
    seeds        fewer than three seeds of the best finished: no interval, or one that says next to nothing
    unfinished   another got more in fewer seeds, or has fewer than three seeds in common with the best
    level        another is not shown to be lower

Guessing gets the share p of the commonest class at most, and on n test samples by luck up to
p + 1.96·√(p(1 − p)/n). It is known for accuracy alone.

Another is lower where the mean d of its differences from the best, paired by seed over three seeds or more,
is above zero by more than the half-width

    √(h² + 1.96²·|d|(1 − |d|)/n)

h is that of Student's 95 % interval over the seeds. It does not hold the luck of the n test samples, which
all seeds share: two classifiers whose accuracies differ by d answer a share s ≥ |d| of the samples
differently, and from one test set to the next the difference has the variance (s − d²)/n (McNemar). Of s the
accuracies tell no more than that, so the least is counted, and a narrow win can still be luck of the test
set. Where the seeds of each of two miss nearly the same samples, and the two miss unrelated ones, two that
are equally good were told apart in a tenth to two thirds of simulated draws, of 3 to 10 seeds. Of a user's
metric n tells nothing: there the half-width is h alone, and that luck is not counted.

One that finished in fewer than half of the best's seeds has lost by diverging. As the winner must be told
from the nearest of the others too, that there are several pairs does not make a chance winner likelier than
one pair does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from normwright.lab.intervals import mean_interval
from normwright.lab.records import Lead, Row

DIVERGED, CHANCE, ALONE, SEEDS = "diverged", "chance", "alone", "seeds"
UNFINISHED, LEVEL = "unfinished", "level"
LEAST_SEEDS = 3

# Of a normal distribution, 95 % lie within so many deviations.
_DEVIATIONS = 1.96

# Relative; a mean of equal metrics may differ in its last bits.
_ROUNDING = 1e-9

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
        luck = _DEVIATIONS * math.sqrt(self.share * (1 - self.share) / self.samples)
        return min(self.share + luck, 1.0)


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
        return Lead(size, None, None, (), (), DIVERGED)
    best = max(alive, key=lambda row: (finished(row), mean_test(row)))
    samples = None if chance is None else chance.samples
    beside = [row for row in alive if row is not best and not _is_lower(row, best, tests, samples)]
    unfinished = [row for row in beside if _lacks_seeds(row, best, tests)]
    doubt = _doubt(rows, best, beside, unfinished, chance)
    return Lead(
        size,
        best.norm,
        None if doubt else best.norm,
        tuple(row.norm for row in beside if row not in unfinished),
        tuple(row.norm for row in unfinished),
        doubt,
    )


def _doubt(
    rows: Sequence[Row],
    best: Row,
    beside: Sequence[Row],
    unfinished: Sequence[Row],
    chance: Guessing | None,
) -> str:
    """Why there is no winner; "" where there is one."""
    beaten = any(is_above(row, best) for row in unfinished)
    if chance is not None and mean_test(best) <= chance.most and not beaten:
        return CHANCE
    if len(rows) == 1:
        return ALONE
    if finished(best) < LEAST_SEEDS:
        return SEEDS
    if unfinished:
        return UNFINISHED
    return LEVEL if beside else ""


def _is_lower(row: Row, best: Row, tests: SeedMetrics, samples: int | None) -> bool:
    if has_lost(row, best):
        return True
    differences = _differences(row, best, tests)
    if len(differences) < LEAST_SEEDS:
        return False
    interval = mean_interval(differences)
    assert interval is not None
    assert interval.low is not None
    half = math.hypot(interval.mean - interval.low, _test_set_luck(interval.mean, samples))
    # Without a width, metrics that are the same but for rounding would be told apart.
    return interval.mean - half > _ROUNDING * abs(mean_test(best))


def _test_set_luck(difference: float, samples: int | None) -> float:
    """Half of the 95 % interval that a difference of accuracies has at least, of the test set alone."""
    if samples is None:
        return 0.0
    share = abs(difference)
    return _DEVIATIONS * math.sqrt(share * (1 - share) / samples)


def _lacks_seeds(row: Row, best: Row, tests: SeedMetrics) -> bool:
    """Whether it got more in fewer seeds, or fewer than three in common leave them untold."""
    few = len(_differences(row, best, tests)) < LEAST_SEEDS <= finished(best)
    return few or is_above(row, best)


def _differences(row: Row, best: Row, tests: SeedMetrics) -> list[float]:
    """The best's test metric less another's, in each seed that both finished."""
    own = tests[row.norm]
    return [value - own[seed] for seed, value in tests[best.norm].items() if seed in own]


def has_lost(row: Row, best: Row) -> bool:
    """Whether a row has lost by diverging."""
    return 2 * finished(row) < finished(best)


def is_equal(row: Row, other: Row) -> bool:
    """Whether two rows have the same mean test metric, but for rounding."""
    return math.isclose(mean_test(row), mean_test(other), rel_tol=_ROUNDING)


def is_above(row: Row, other: Row) -> bool:
    """Whether a row has the higher mean test metric, by more than rounding."""
    return mean_test(row) > mean_test(other) and not is_equal(row, other)


def mean_test(row: Row) -> float:
    """The mean test metric of a row of which a seed finished."""
    assert row.test is not None
    return row.test.mean


def finished(row: Row) -> int:
    """How many seeds of it finished."""
    return 0 if row.test is None else row.test.count
