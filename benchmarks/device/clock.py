"""Clocks that say how long a device was busy with a task, and the turns that tasks are timed in."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from benchmarks.alternate import Task, Timing


class Clock(Protocol):
    """Seconds that a task takes, and how often the device had to wait for the host within a task."""

    waited: Counter[str]

    def seconds(self, name: str, task: Task) -> float:
        """Runs the task once."""


class WallClock:
    """The clock of a device that computes as it is told to: for rehearsals on a CPU."""

    def __init__(self) -> None:
        self.waited: Counter[str] = Counter()

    def seconds(self, name: str, task: Task) -> float:
        """Runs the task once."""
        start = time.perf_counter()
        task()
        return time.perf_counter() - start


# `_sleep` counts the device's cycles; no GPU runs at more than this many a second.
_CYCLES = 2.5e9
_LONGEST_HEAD_START = 0.05


class EventClock:
    """Two events around a task. A GPU that waits for its orders would be timed waiting: the host gets a head
    start.

    A kernel that only spins keeps the device busy until the host has queued the first event, all of the task
    and the second event, so that the events are as far apart as the task's kernels take back to back. Where
    the host was overtaken all the same (a task that reads a result back waits for it) the task's name is kept
    in `waited`: its time then holds the host's, too.
    """

    def __init__(self) -> None:
        self.waited: Counter[str] = Counter()
        self._host: dict[str, float] = {}

    def seconds(self, name: str, task: Task) -> float:
        """Runs the task once, or twice where the host was overtaken the first time."""
        for _ in range(2):
            seconds, ahead = self._once(name, task)
            if ahead:
                return seconds
        self.waited[name] += 1
        return seconds

    def _once(self, name: str, task: Task) -> tuple[float, bool]:
        start, end = (_event() for _ in range(2))
        torch.cuda.synchronize()
        head_start = min(2 * self._host.get(name, 0.0) + 2e-4, _LONGEST_HEAD_START)
        torch.cuda._sleep(int(head_start * _CYCLES))
        start.record()
        before = time.perf_counter()
        task()
        self._host[name] = time.perf_counter() - before
        end.record()
        ahead = not start.query()
        end.synchronize()
        return 1e-3 * float(start.elapsed_time(end)), ahead


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)


def clock_of(device: torch.device) -> Clock:
    """The clock of a device."""
    return EventClock() if device.type == "cuda" else WallClock()


def in_turn(
    tasks: Mapping[str, Task], clock: Clock, *, seconds: float, least: int = 11, most: int = 51
) -> dict[str, Timing]:
    """Times every task once per repetition, A B C A B C …, for about `seconds`, after a warm-up.

    Example:
        >>> timings = in_turn({"A": lambda: None}, WallClock(), seconds=0.0, least=2)
        >>> len(timings["A"].seconds)
        2
    """
    for _ in range(2):
        for name, task in tasks.items():
            clock.seconds(name, task)
    clock.waited.clear()
    begin = time.perf_counter()
    for name, task in tasks.items():
        clock.seconds(name, task)
    repeats = min(max(int(seconds / max(time.perf_counter() - begin, 1e-9)), least), most)
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            found[name].append(clock.seconds(name, task))
    return {name: Timing(tuple(values)) for name, values in found.items()}
