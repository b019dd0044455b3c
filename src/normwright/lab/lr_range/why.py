"""Why a learning rate is recommended, or none, in one sentence."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from normwright.lab.lr_range.records import RateCurve, UsableRange, at_least, shown_decades


def why(ranges: Sequence[UsableRange]) -> str:
    """The sentence on the ranges of a network with its normalisers and, where it has some, without."""
    usable = ranges[0]
    if usable.decades is None and all(curve.lower is not None for curve in usable.curves):
        return "each seed has a usable range, but there is no rate that all of these hold."
    if usable.decades is None:
        return (
            "the loss of the network itself did not fall at every seed by more than its noise and a tenth of "
            "the greatest fall. More steps, or a larger batch, tell a slow fall from noise."
        )
    is_steepest = usable.steepest == steepest_of(usable.curves)
    what = (
        "there the loss falls most from step to step, within"
        if is_steepest
        else "it is the end nearest to where the loss falls most from step to step, of"
    )
    sentence = f"{what} a usable range of {_width(usable)} decades"
    return f"{sentence}{_beside(usable, ranges[1])}." if len(ranges) > 1 else f"{sentence}."


def steepest_of(curves: Sequence[RateCurve]) -> float:
    """The median of their steepest rates, the lower one of two; it may lie beyond what all have in common."""
    return statistics.median_low([curve.steepest for curve in curves if curve.steepest is not None])


def _beside(usable: UsableRange, bare: UsableRange) -> str:
    """How wide the range is without normalisers, and what they add, as far as the rates that were run say."""
    if bare.decades is None:
        return ", where without normalisers no rate is usable"
    # Of the widths as they are shown, so that the three numbers of the sentence add up.
    wider = shown_decades(usable) - shown_decades(bare)
    # A width that is cut off is a least one: the truth lies further on that side alone.
    told = (wider > 0 and not at_least(bare)) or (wider < 0 and not at_least(usable))
    if not told:
        known = not (at_least(usable) or at_least(bare))
        return f", as without normalisers ({_width(bare)})" if known else _cut_off(bare)
    least = "at least " if at_least(usable) or at_least(bare) else ""
    change = "wider" if wider > 0 else "narrower"
    return f", which the normalisers make {least}{abs(wider):.1f} decades {change} ({_width(bare)} without)"


def _cut_off(bare: UsableRange) -> str:
    return f" and of {_width(bare)} without normalisers; which is wider, the rates that were run do not tell"


def _width(usable: UsableRange) -> str:
    return f"{at_least(usable)}{shown_decades(usable):.1f}"
