"""Bounds: measures of which one side alone is known, because a run, or the rates tried, ended too soon."""

from __future__ import annotations

import math
from dataclasses import dataclass

EXACT, AT_LEAST, AT_MOST = "", "at least", "at most"
KINDS = (EXACT, AT_LEAST, AT_MOST)


@dataclass(frozen=True)
class Reading:
    """A number that was read off; or, where what was to be seen did not come, the least that it can be.

    Args:
        value: the number.
        ended: it was not seen by then, and the true one is at least this.
    """

    value: float
    ended: bool = False


def ratio_of(over: Reading, under: Reading) -> tuple[float, str]:
    """One reading over another, and on which side of that the true ratio lies.

    NaN where both ended: of such a ratio nothing is known.

    Example:
        >>> ratio_of(Reading(600, ended=True), Reading(50)), ratio_of(Reading(400), Reading(600, ended=True))
        ((12.0, 'at least'), (0.6666666666666666, 'at most'))
    """
    if over.ended and under.ended:
        return math.nan, EXACT
    return over.value / under.value, AT_LEAST if over.ended else AT_MOST if under.ended else EXACT
