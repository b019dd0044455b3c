"""Times the training steps of one batch size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from normwright.lab.advice.trainee import Trainee
from normwright.lab.batch_size.rules import Rate, rate_of
from normwright.lab.training import finish_queue

# With fewer than six there is no interval of the median; the seventh lets one be out of the way.
LEAST_STEPS = 7

# More say little: they know the median of steps that differ by a tenth to within a hundredth.
MOST_STEPS = 600

_WARM_UP = 2
_BLOCKS = 6


class Clock:
    """The times of one batch size's steps, taken in blocks.

    Args:
        batch_size: samples per step.
        now: a clock in seconds.
    """

    def __init__(self, batch_size: int, now: Callable[[], float] = time.perf_counter) -> None:
        self.batch_size = batch_size
        self.seconds: list[float] = []
        self._now = now

    @property
    def rate(self) -> Rate:
        """Samples per second so far."""
        return rate_of(self.batch_size, self.seconds)

    def block(self, trainee: Trainee, batch: Any, limit: float) -> None:
        """Times some steps from the start values on, after two that are not counted.

        A GPU is waited for before and after each step, so that a step's time is its own. The first block has
        as many steps as an interval needs; each takes a sixth of the limit, or of the most steps.

        Args:
            limit: seconds that this size may take in all.
        """
        trainee.back_to_start()
        for _ in range(_WARM_UP):
            trainee.step(batch)
        finish_queue(trainee.device)
        least = 0 if self.seconds else LEAST_STEPS
        spent, steps = 0.0, 0
        while steps < least or (spent < limit / _BLOCKS and steps < MOST_STEPS // _BLOCKS):
            start = self._now()
            trainee.step(batch)
            finish_queue(trainee.device)
            self.seconds.append(self._now() - start)
            spent += self.seconds[-1]
            steps += 1

    def known(self, relative_error: float) -> bool:
        """Whether half of the rate's interval is at most this share of the rate."""
        rate = self.rate
        return (rate.high - rate.low) / 2 <= relative_error * rate.value

    def used_up(self, limit: float) -> bool:
        """Whether the steps took as long as they may in all, or are as many."""
        return sum(self.seconds) >= limit or len(self.seconds) >= MOST_STEPS
