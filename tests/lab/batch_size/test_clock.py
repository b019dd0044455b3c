"""Which steps are timed, by a clock of the test's own."""

from __future__ import annotations

import pytest

from normwright.lab.batch_size.clock import LEAST_STEPS, MOST_STEPS, Clock


class Steps:
    """Counts as a trainee; a step takes as long as the next of `seconds`."""

    device = None

    def __init__(self, *seconds):
        self.now, self.taken, self.starts = 0.0, 0, 0
        self.seconds = seconds

    def back_to_start(self):
        self.starts += 1

    def step(self, batch):
        self.now += self.seconds[self.taken % len(self.seconds)]
        self.taken += 1

    def clock(self, size):
        return Clock(size, lambda: self.now)


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """How often a GPU's queue was waited for."""
    seen = []
    monkeypatch.setattr("normwright.lab.batch_size.clock.finish_queue", seen.append)
    return seen


def test_warm_up_does_not_count_and_each_step_is_waited_for(waits):
    steps = Steps(50.0, 50.0, *[1.0] * LEAST_STEPS)
    clock = steps.clock(4)
    clock.block(steps, None, limit=0.001)
    assert clock.seconds == [1.0] * LEAST_STEPS
    assert clock.rate.value == 4.0
    assert steps.starts == 1
    assert len(waits) == LEAST_STEPS + 1


def test_a_block_takes_a_sixth_of_the_limit_once_there_is_an_interval():
    steps = Steps(1.0)
    clock = steps.clock(4)
    for count in (10, 20):
        clock.block(steps, None, limit=60.0)
        assert len(clock.seconds) == count
    assert not clock.used_up(60.0)
    for _ in range(4):
        clock.block(steps, None, limit=60.0)
    assert clock.used_up(60.0)


def test_known_is_judged_by_the_interval():
    steps = Steps(1.0, 1.1)
    clock = steps.clock(1)
    clock.block(steps, None, limit=0.001)
    assert not clock.known(0.02)  # from 1/1.1 to 1/1 is 9 %
    assert clock.known(0.05)


def test_quick_steps_are_not_timed_without_end():
    steps = Steps(1e-5)
    clock = steps.clock(4)
    for _ in range(6):
        assert not clock.used_up(60.0)
        clock.block(steps, None, limit=60.0)
    assert len(clock.seconds) == MOST_STEPS
    assert clock.used_up(60.0)
