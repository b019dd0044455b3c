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

    √(h² + 1.96²·v)

h is that of Student's 95 % interval over the seeds. It does not hold the luck of the n test samples, which
all seeds share: v is the variance that the samples give to d and seeds do not average away, from the answers
to each sample in each seed (`gap_of_answers`). Where the answers of a run are not kept, v is the least that
the accuracies allow (`gap_of_totals`): then, where the seeds of each of two miss nearly the same samples and
the two miss unrelated ones, two that are equally good are told apart in a fifth to three quarters of draws.
By the answers it is one in twenty, as `benchmarks/winners.py` counts. Of a user's metric n tells nothing:
there v is 0, and that luck is not counted.

One that finished in fewer than half of the best's seeds has lost by diverging. As the winner must be told
from the nearest of the others too, that there are several pairs does not make a chance winner likelier than
one pair does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from normwright.lab.paired import DEVIATIONS, Bools, Gap, gap_of_answers, gap_of_totals
from normwright.lab.records import Lead, Row

DIVERGED, CHANCE, ALONE, SEEDS = "diverged", "chance", "alone", "seeds"
UNFINISHED, LEVEL = "unfinished", "level"
LEAST_SEEDS = 3

# Relative; a mean of equal metrics may differ in its last bits.
_ROUNDING = 1e-9

SeedMetrics = Mapping[str, Mapping[int, float]]
"""A measure by normaliser and seed, of the runs that have one."""

SeedAnswers = Mapping[str, Mapping[int, Bools]]
"""Which test samples are right, (n,), by normaliser and seed, of the runs of which it is known."""


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
        luck = DEVIATIONS * math.sqrt(self.share * (1 - self.share) / self.samples)
        return min(self.share + luck, 1.0)


def guessing(labels: Tensor) -> Guessing:
    """Of a test set with these labels, (N,).

    Example:
        >>> import torch
        >>> guessing(torch.tensor([0, 1, 1, 2])).share
        0.5
    """
    return Guessing(int(labels.unique(return_counts=True)[1].max()) / len(labels), len(labels))


def lead(
    rows: Sequence[Row],
    tests: SeedMetrics,
    chance: Guessing | None,
    *,
    answers: SeedAnswers | None = None,
) -> Lead:
    """Who leads, and why it is not a win where it is none.

    Args:
        rows: of one batch size, at least one.
        tests: the test metric of each of their finished runs.
        chance: None for a metric of which it is not known.
        answers: of those runs; for accuracy, all of the same test samples.
    """
    size = rows[0].batch_size
    alive = [row for row in rows if row.test is not None]
    if not alive:
        return Lead(size, None, None, (), (), DIVERGED)
    best = max(alive, key=lambda row: (finished(row), mean_test(row)))
    samples, answers = None if chance is None else chance.samples, answers or {}
    others = [row for row in alive if row is not best]
    found = {row.norm: _gap(row, best, tests, samples, answers) for row in others}
    gaps = {norm: gap for norm, gap in found.items() if gap is not None}
    judged = [row for row in others if chance and row.norm in gaps and not has_lost(row, best)]
    by_totals = tuple(row.norm for row in judged if not _are_answered(row, best, tests, answers))
    beside = [row for row in others if not _is_lower(row, best, gaps)]
    unfinished = [row for row in beside if _lacks_seeds(row, best, tests)]
    doubt = _doubt(rows, best, beside, unfinished, chance)
    level = tuple(row.norm for row in beside if row not in unfinished)
    near = [] if by_totals else [gaps[norm] for norm in level if norm in gaps]
    return Lead(
        size,
        best.norm,
        None if doubt else best.norm,
        level,
        tuple(row.norm for row in unfinished),
        doubt,
        by_totals=by_totals,
        enough_seeds=_most([gap.enough_seeds for gap in near]),
        enough_samples=_most([gap.enough_samples for gap in near]),
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


def _most(counts: Sequence[int | None]) -> int | None:
    """What is enough for all; None where for one nothing is, or of none it is known."""
    known = [count for count in counts if count is not None]
    return max(known) if known and len(known) == len(counts) else None


def _gap(row: Row, best: Row, tests: SeedMetrics, samples: int | None, answers: SeedAnswers) -> Gap | None:
    """The best less another, over the seeds that both finished; None where these are too few."""
    seeds = _common_seeds(row, best, tests)
    if len(seeds) < LEAST_SEEDS:
        return None
    if _are_answered(row, best, tests, answers):
        return gap_of_answers(*([answers[one.norm][seed] for seed in seeds] for one in (best, row)))
    own, most = tests[row.norm], tests[best.norm]
    return gap_of_totals([most[seed] - own[seed] for seed in seeds], samples)


def _are_answered(row: Row, best: Row, tests: SeedMetrics, answers: SeedAnswers) -> bool:
    seeds = _common_seeds(row, best, tests)
    return all(seed in answers.get(one.norm, {}) for one in (best, row) for seed in seeds)


def _common_seeds(row: Row, best: Row, tests: SeedMetrics) -> list[int]:
    """Those that both finished."""
    return [seed for seed in tests[best.norm] if seed in tests[row.norm]]


def _is_lower(row: Row, best: Row, gaps: Mapping[str, Gap]) -> bool:
    if has_lost(row, best):
        return True
    gap = gaps.get(row.norm)
    # Without a width, metrics that are the same but for rounding would be told apart.
    return gap is not None and gap.mean - gap.half > _ROUNDING * abs(mean_test(best))


def _lacks_seeds(row: Row, best: Row, tests: SeedMetrics) -> bool:
    """Whether it got more in fewer seeds, or fewer than three in common leave them untold."""
    few = len(_common_seeds(row, best, tests)) < LEAST_SEEDS <= finished(best)
    return few or is_above(row, best)


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
