"""The machine that an experiment runs on: in words, how many runs it takes at a time, and what times them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

import torch


def machine_in_words(device: str) -> str:
    """Device, versions and core count, in one line."""
    kind = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return (
        f"{device} ({kind}, {os.cpu_count()} cores), Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}"
    )


def default_jobs(device: str, runs: int) -> int:
    """Processes that train at once: one per core on the CPU, one on a GPU, no more than there are runs."""
    if torch.device(device).type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, runs))


CLOCKS: dict[str, Callable[[], float]] = {"processor": time.thread_time, "passed": time.perf_counter}
"""What times a training step, in seconds, by name."""


def clock_of(device: str, threads: int) -> str:
    """The name of what times a training step.

    On the CPU with one thread that is the thread's own time, which does not go on while other work has the
    core: a step that often fits between two turns and one that seldom does would not be told in their true
    ratio. With several threads, on a GPU, and where the system counts a thread's time in ticks of 15 ms
    (Windows), it is the time that passes.

    Example:
        >>> clock_of("cpu", 1), clock_of("cpu", 2)
        ('processor', 'passed')
    """
    alone = torch.device(device).type == "cpu" and threads == 1 and os.name == "posix"
    return "processor" if alone else "passed"
