"""Two normalisers side by side, paired by seed and by test sample: how far apart, and how sure that is."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from normwright.lab.intervals import CONFIDENCE

Bools = npt.NDArray[np.bool_]

# Of a normal distribution, 95 % lie within so many deviations.
DEVIATIONS = 1.96

# Where few samples tell two networks apart, the normal distribution is too narrow for their count: with one
# more on either side (Bonett & Price 2012, J. Educ. Behav. Stat. 37:479), five against none are no win, six
# are.
_ADDED = 2.0

_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Gap:
    """A mean difference, and the variance that seeds and test samples give it.

        half-width = √(t(0.975, seeds - 1)²·over_seeds + 1.96²·over_samples)

    Args:
        mean: over the seeds, of one test metric less another.
        seeds: how many are paired; two or more.
        over_seeds: of the mean, by Student's formula: s²/seeds.
        over_samples: what another test set of as many samples would add, which all seeds share.
        samples: of the test set; None where it is not known what they add.
        common: the part of `over_seeds` that a larger test set lessens too; None where it is not known.
    """

    mean: float
    seeds: int
    over_seeds: float
    over_samples: float = 0.0
    samples: int | None = None
    common: float | None = None

    @property
    def half(self) -> float:
        """Half of the 95 % interval."""
        return math.sqrt(_student(self.seeds) ** 2 * self.over_seeds + self._of_samples)

    @property
    def _of_samples(self) -> float:
        return DEVIATIONS**2 * self.over_samples

    @property
    def enough_seeds(self) -> int | None:
        """About how many seeds would tell the two apart, were the mean to stay; None where none would."""
        counts = range(2, _MOST_SEEDS + 1)
        place = bisect.bisect_left(counts, True, key=self._is_told_by)
        return counts[place] if self.mean > 0 and place < len(counts) else None

    def _is_told_by(self, seeds: int) -> bool:
        of_seeds = _student(seeds) ** 2 * self.over_seeds * self.seeds / seeds
        return of_seeds + self._of_samples < self.mean**2

    @property
    def enough_samples(self) -> int | None:
        """About how many test samples would, in as many seeds; None where none would, or it is not known."""
        if self.samples is None or self.common is None or self.mean <= 0:
            return None
        student, added = _student(self.seeds) ** 2, DEVIATIONS**2 * _ADDED / self.samples**2
        shrinking = min(self.common, self.over_seeds)
        room = self.mean**2 - student * (self.over_seeds - shrinking)
        if room <= 0:
            return None
        # Of x = samples / more, what the samples give falls as b·x, and what was added to it as c·x².
        b = student * shrinking + self._of_samples - added
        x = (math.sqrt(b**2 + 4 * added * room) - b) / (2 * added)
        return math.ceil(self.samples / x)


def gap_of_totals(differences: Sequence[float], samples: int | None) -> Gap:
    """Of the differences of each seed alone.

    Of the test set only the least is known: two networks whose accuracies differ by d answer a share s ≥ |d|
    of the n samples differently, and from one test set to the next d has the variance (s - d²)/n (McNemar).

    Args:
        differences: one per seed, two or more.
        samples: of the test set; None for a metric that is no mean over them, where nothing is added.
    Example:
        >>> gap_of_totals([0.1, 0.2, 0.3], None).half  # doctest: +ELLIPSIS
        0.248...
    """
    mean, over_seeds = float(np.mean(differences)), float(np.var(differences, ddof=1)) / len(differences)
    least = 0.0 if samples is None else abs(mean) * (1 - abs(mean)) / samples
    return Gap(mean, len(differences), over_seeds, least, samples)


def gap_of_answers(ours: Sequence[Bools], theirs: Sequence[Bools]) -> Gap:
    """Of the answers to single test samples, whose seeds and samples are both drawn at random (crossed).

        x[i, j] = mean + seed[i] + sample[j] + rest[i, j]
        over_samples = variance of sample/n + 2/n²

    The three variances are those of the analysis of variance, none below zero.

    Args:
        ours, theirs: (n,), right or wrong, one per seed in the same order, two or more; of the same samples.
    References:
        Owen 2007, "The pigeonhole bootstrap", arXiv:0712.1111, on means of crossed data.
    Example:
        >>> right, wrong = np.ones(100, bool), np.zeros(100, bool)
        >>> round(gap_of_answers([right] * 3, [wrong] * 3).half, 4)
        0.0277
    """
    x = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    seeds, samples = x.shape
    by_seed, by_sample = x.mean(1), x.mean(0)
    over_seeds = float(by_seed.var(ddof=1)) / seeds
    if samples == 1:
        return Gap(float(x.mean()), seeds, over_seeds, _ADDED, samples, 0.0)
    rest = x - by_seed[:, None] - by_sample + x.mean()
    common = float((rest**2).sum()) / ((seeds - 1) * (samples - 1)) / (seeds * samples)
    own = max(float(by_sample.var(ddof=1)) / samples - common, 0.0)
    return Gap(float(x.mean()), seeds, over_seeds, own + _ADDED / samples**2, samples, common)


def _student(seeds: int) -> float:
    return float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2))
