"""How far the runs are, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

Running = Sequence[tuple[str, int, int]]
"""(description, step, steps) of each run under way."""


class Pace:
    """The time left, from what was done since the first run began.

    Finished runs that were found at the beginning took no time, so they do not count.

    Example:
        >>> clock = iter([0.0, 10.0])
        >>> pace = Pace(lambda: next(clock))
        >>> pace.seconds_left(2, 6, [("a", 0, 100)]), pace.seconds_left(3, 6, [("b", 0, 100)])
        (None, 30.0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin: tuple[float, float] | None = None

    def seconds_left(self, done: int, total: int, running: Running) -> float | None:
        """Seconds until all runs are done at the pace so far; None before anything can be said."""
        so_far = amount(done, running)
        if self._begin is None:
            # Workers take seconds to start, which are no sign of the pace.
            if running:
                self._begin = (self._clock(), so_far)
            return None
        then, before = self._begin
        if so_far <= before:
            return None
        return (total - so_far) * (self._clock() - then) / (so_far - before)


def amount(done: int, running: Running) -> float:
    """Runs done, with the parts done of those under way.

    Example:
        >>> amount(2, [("a", 25, 100), ("b", 0, 0)])
        2.25
    """
    return done + sum(min(step / steps, 1.0) for _, step, steps in running if steps)


def duration(seconds: float) -> str:
    """A time in words, to two units.

    Example:
        >>> duration(0.1), duration(125), duration(3720)
        ('1 s', '2 min 05 s', '1 h 02 min')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {left:02d} s"
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02d} min"
