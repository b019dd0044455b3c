"""How much time is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Deadline:
    """A moment by which to be done; `clock` counts seconds.

    Example:
        >>> Deadline(90.0, clock=lambda: 30.0).left
        60.0
    """

    moment: float
    clock: Callable[[], float] = field(default=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self.moment - self.clock()

    def within(self, seconds: float) -> Deadline:
        """The earlier of this and `seconds` from now."""
        return Deadline(min(self.moment, self.clock() + seconds), self.clock)


def deadline_in(seconds: float) -> Deadline:
    """The moment `seconds` from now."""
    return Deadline(time.monotonic() + seconds)
