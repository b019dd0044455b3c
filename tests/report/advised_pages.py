"""Advice as it may be found, with hostile names, to make pages of."""

from __future__ import annotations

import dataclasses
import math

from normwright.lab.batch_size.records import BatchSizes, LayerNoise, MomentNoise, SizeTrial, SkippedSize
from normwright.lab.lr_range.records import LearningRates, RateCurve, UsableRange

HOSTILE = "<script>alert(1)</script>"
LAYERS = ("</script><b>x</b>", "\"&'%{x}")


def noise(size):
    layers = tuple(
        LayerNoise(name, 4 * size, 0.9 / math.sqrt(size), 0.5 / math.sqrt(size), 0.5 / math.sqrt(size), 0.4)
        for name in LAYERS
    )
    return MomentNoise(8, layers, 0.4 / math.sqrt(size), 0.9 / math.sqrt(size), 0.3, 0.5)


def trial(size, *, noisy=True):
    rate = 1000 * size / (size + 16)
    return SizeTrial(
        size, 30, rate, 0.97 * rate, 1.02 * rate, rate / 1000, True, 2**20 + 9000 * size, 0.5,
        noise(size) if noisy else None, "" if noisy else "The network has no batch norm.",
    )  # fmt: skip


def batch_sizes(sizes=(2, 4, 8, 16, 32, 64, 128, 256, 512), *, network=HOSTILE, noisy=True):
    return BatchSizes(
        network, f"{HOSTILE} data", "cpu", 1000, sizes[-1], f"it is the best of {HOSTILE}.",
        tuple(trial(size, noisy=noisy) for size in sizes),
        (SkippedSize(1, f"batch norm {LAYERS[0]!r} would take a moment of one element"),),
        "the data hold 1,000 samples", 0.05, 0.02, 2**30, (f"A note on {HOSTILE}.",),
    )  # fmt: skip


def curve(seed, low, high, *, usable=True):
    rates = tuple(10 ** (-5 + 6 * step / 99) for step in range(100))
    losses = tuple(2.3 - math.exp(-((math.log10(rate) + 1.5 + 0.1 * seed) ** 2)) for rate in rates)
    ends = (rates[low], rates[(low + high) // 2], rates[high]) if usable else (None, None, None)
    return RateCurve(seed, rates, losses, losses, 2.3, 0.01, *ends, False, False, "all rates were run")


def usable_range(label, low, high, *, usable=True, seeds=3):
    curves = tuple(curve(seed, low, high, usable=usable) for seed in range(seeds))
    first = curves[0]
    decades = math.log10(first.upper / first.lower) if usable else None
    return UsableRange(
        label != "without", label, curves, first.lower, first.steepest, first.upper, False, False, decades
    )


def learning_rates(*, network=HOSTILE, without="usable", seeds=3):
    ranges = [usable_range("with normalisers" if without else "as it is", 40, 80, seeds=seeds)]
    if without:
        ranges.append(usable_range("without", 50, 70, usable=without == "usable", seeds=seeds))
    if without == "overflows":
        gone = RateCurve(
            0, (), (), (), math.inf, 0.0, None, None, None, False, False, "the loss was not finite"
        )
        ranges[1] = dataclasses.replace(ranges[1], curves=(gone,))
    return LearningRates(
        network, f"{HOSTILE} data", "cpu", 64, tuple(ranges), ranges[0].steepest, 1.2, 4.0,
        f"there {HOSTILE} falls.", (f"A note on {HOSTILE}.",),
    )  # fmt: skip
