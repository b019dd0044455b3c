"""The least copies that the memory traffic of a case allows; arithmetic, caches and page faults are free."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.cases import Case


class Least(NamedTuple):
    """Copies where every second read of a block comes from cache, and where it comes from memory."""

    cached: float
    uncached: float

    def __str__(self) -> str:
        return " to ".join(f"{copies:.1f}" for copies in dict.fromkeys(self))


def least(case: Case) -> Least:
    """Counts half a copy for each tensor read or written.

    Forward reads x and writes y; backward reads x and dy and writes dx. A residual is one read more, and
    its gradient one write. One bit per element for the activation's backward is not counted, and x is
    enough to recompute an activation from (of those that need more than the bit, none of the cases has a
    residual). Moments need a read before the one that applies them: it is free if the elements of a moment
    fit in cache, as they do unless a channel is spread over the whole tensor.

    Example:
        >>> str(least(Case("batch_norm", (8, 4, 5, 5), layout="channels-last")))
        '2.5 to 4.0'
    """
    extra = 0.5 if case.residual else 0.0
    forward, backward = 1.0 + extra, 1.5 + extra
    once = forward + (backward if case.mode == "step" else 0.0)
    again = {"inference": 0.0, "forward": 0.5, "step": 1.5}[case.mode]
    return Least(once, once + (again if _channels_are_spread(case) else 0.0))


def _channels_are_spread(case: Case) -> bool:
    two_axes = len(case.shape) == 2
    return case.operator == "batch_norm" and (two_axes or case.layout == "channels-last")
