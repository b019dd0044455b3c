"""Where a range begins, where it is steepest and where it ends."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# A range begins when this share of the largest fall is done, and ends when as much is lost again.
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
    """The centred running mean over `window` losses; near an end, over as many as there are on its shorter side.

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


def fall(start: float, noise: float, smoothed: Sequence[float]) -> float:
    """How far the smoothed loss fell below its start; 0 where that is no more than noise.

    Example:
        >>> fall(2.0, 0.01, (2.0, 1.5, 3.0)), fall(2.0, 0.2, (2.0, 1.5, 3.0))
        (0.5, 0.0)
    """
    depth = start - min(smoothed, default=math.inf)
    return depth if depth > ERRORS * noise else 0.0


def ends(start: float, noise: float, smoothed: Sequence[float], largest_fall: float) -> Ends | None:
    """The range of one sweep.

        change = max(SHARE · largest fall, ERRORS · noise)
        lower: the first step from which on, up to the lowest loss, smoothed ≤ start − change
        upper: the last step up to which, from the lowest loss on, smoothed ≤ lowest + change
        steepest: the step from lower to the lowest over which smoothed falls most

    Args:
        largest_fall: over all sweeps that are compared, so that a network which hardly learns is not judged
            by the little that it does.
    Returns:
        None where the loss did not fall by `change`.
    Example:
        >>> ends(2.0, 0.0, (2.0, 1.9, 1.0, 0.5, 0.6, 3.0), 1.5)
        Ends(lower=2, steepest=2, upper=4)
    """
    change = max(SHARE * largest_fall, ERRORS * noise)
    if not fall(start, noise, smoothed) or start - min(smoothed) < change:
        return None
    best = min(range(len(smoothed)), key=smoothed.__getitem__)
    lower = best
    while lower > 0 and smoothed[lower - 1] <= start - change:
        lower -= 1
    upper = best
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
