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


def ends(noise: float, smoothed: Sequence[float], *, start: float, lowest: float) -> Ends | None:
    """The range of one sweep.

        change = max(SHARE · (start − lowest), ERRORS · noise)
        lower: the first step from which on, up to the sweep's own lowest loss, smoothed ≤ start − change
        upper: the last step up to which, from its own lowest loss on, smoothed ≤ its lowest + change
        steepest: the step from lower to its lowest over which smoothed falls most

    Args:
        noise: the standard error of a smoothed loss.
        start: the least loss with which any of the sweeps that are compared begins. A network that begins
            with a larger one has to come below it first.
        lowest: the lowest smoothed loss of them all, so that a network which hardly learns is not judged by
            the little that it does.
    Returns:
        None where the loss does not come below start − change.
    Example:
        >>> ends(0.0, (2.0, 1.9, 1.0, 0.5, 0.6, 3.0), start=2.0, lowest=0.5)
        Ends(lower=2, steepest=2, upper=4)
        >>> ends(0.1, (2.0, 1.9, 1.8), start=2.0, lowest=0.5) is None
        True
    """
    change = max(SHARE * (start - lowest), ERRORS * noise)
    if not smoothed or not min(smoothed) < start - change:
        return None
    best = min(range(len(smoothed)), key=smoothed.__getitem__)
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
