"""Times several things in turn, so that a machine whose speed drifts treats them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Task = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    def ratio_to(self, other: Timing) -> float:
        """The median of the ratios repetition by repetition."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def alternate(tasks: Mapping[str, Task], *, repeats: int, warmup: int = 3) -> dict[str, Timing]:
    """Runs every task once per repetition, A B C A B C …, and times each."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for repetition in range(warmup + repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if repetition >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def alternate_for(
    tasks: Mapping[str, Task], *, seconds: float, least: int = 7, most: int = 51
) -> dict[str, Timing]:
    """`alternate` with as many repetitions as fit into about `seconds`, between `least` and `most`."""
    trial = alternate(tasks, repeats=1, warmup=2)
    repetition = sum(timing.median for timing in trial.values())
    return alternate(tasks, repeats=min(max(int(seconds / repetition), least), most), warmup=0)


def repeated(task: Task, times: int) -> Task:
    """A task that does the task `times` times, for tasks too short for one clock reading."""

    def run() -> None:
        for _ in range(times):
            task()

    return run
