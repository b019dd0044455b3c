"""Compiles kernels in several processes at once, ahead of measuring, which is one process's.

Triton and torch.compile keep what they compiled on disk, where the process that measures finds it: what takes
one process minutes of the host's time then takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from benchmarks.device.deadline import Deadline
from benchmarks.device.isolated import run_jobs

# As many processes share a GPU; fewer where there are fewer cores.
MOST_WORKERS = 8
_LONGEST = 120.0


def warm(
    function: Callable[[Any], Any], jobs: Sequence[Any], *, deadline: Deadline, log: IO[str] | None = None
) -> None:
    """Runs function(job) for every job, several at once, for what it leaves on disk alone."""
    workers = min(MOST_WORKERS, os.cpu_count() or 1, len(jobs))

    def run(stripe: Sequence[Any]) -> None:
        for _ in run_jobs(function, stripe, deadline=deadline, longest=_LONGEST, log=log):
            pass

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        list(pool.map(run, [jobs[first::workers] for first in range(workers)]))
