"""How far the moments of batches lie apart, and those of their halves, quarters and so on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from normwright.doctor.statistics.sample_moments import SampleMoments
from normwright.statistics.accumulator import Accumulator

#: Below this share of the mean's square a channel's variance is rounding of float32: (2^-24)²·16.
ROUNDING = 2.0**-44


class PartNoise(NamedTuple):
    """The noise of parts of one size.

    Args:
        samples: of a part.
        parts: how many were measured.
        mean: deviation of the parts' means, in deviations of the population; root mean square over the
            channels.
        variance: deviation of the parts' variances, as a share of the population's; likewise.
    """

    samples: int
    parts: int
    mean: float
    variance: float


class Parts:
    """The parts of the batches that one normaliser was given, by their size.

    Each call of one forward has a population of its own, from which its parts are held apart: a layer that is
    called twice may be given other values each time, and that is no noise. Batches of another size than most
    are left out, for their halves are no halves of the others.
    """

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int], dict[int, tuple[Accumulator, Accumulator]]] = {}
        self._batches: Counter[int] = Counter()

    def add(self, moments: SampleMoments, call: int) -> None:
        """Takes in a batch.

        Args:
            moments: of its samples.
            call: which of the layer's calls in one forward it is of, counted from 0.
        """
        samples = len(moments.means)
        self._batches[samples] += 1
        kept = self._calls.setdefault((samples, call), {})
        for size in _halvings(samples):
            new = [Accumulator.of(part) for part in moments.parts(size)]
            means, variances = map(Accumulator.merged, kept[size], new) if size in kept else new
            kept[size] = means, variances

    def noise(self) -> Iterator[PartNoise]:
        """Of whole batches, and of their halves and so on, as far as there are two of them."""
        usual = max(self._batches, key=lambda samples: (self._batches[samples], samples), default=0)
        of_usual = (kept for (size, _), kept in self._calls.items() if size == usual)
        calls = [(kept, *_population(*kept[usual])) for kept in of_usual]
        calls = [found for found in calls if bool(found[-1].any())]
        for size in _halvings(usual) if calls else ():
            squares, freedom, parts = [0.0, 0.0], 0, 0
            for kept, variance, live in calls:
                means, variances = kept[size]
                if means.count < 2:
                    continue
                freedom, parts = freedom + int(means.count) - 1, parts + int(means.count)
                squares[0] += float((means.m2[live] / variance[live]).mean())
                squares[1] += float((variances.m2[live] / variance[live].square()).mean())
            if freedom:
                yield PartNoise(size, parts, *(math.sqrt(square / freedom) for square in squares))


def _population(means: Accumulator, variances: Accumulator) -> tuple[Tensor, Tensor]:
    """(C,) each, from whole batches: the variance, and which channels vary by more than rounding."""
    between = means.m2 / means.count
    variance = variances.mean + between
    return variance, variance > ROUNDING * (means.mean.square() + between)


def _halvings(samples: int) -> Iterator[int]:
    while samples:
        yield samples
        samples //= 2
