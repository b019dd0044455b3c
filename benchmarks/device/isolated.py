"""Runs jobs one after another in a child process, and outlives whatever they do to it.

A kernel that writes out of bounds ruins its process's context on the device, and one that never ends never
gives it back. A job that fails so is reported as failed, and the others go on in another child.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.device.deadline import Deadline

_POLL = 0.05


@dataclass(frozen=True)
class Raised:
    """A job that raised, or took its process with it, and why."""

    reason: str


@dataclass(frozen=True)
class NotRun:
    """A job that there was no time for."""


def run_jobs(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    *,
    deadline: Deadline,
    longest: float = 90.0,
    log: IO[str] | None = None,
) -> Generator[tuple[int, Any], None, None]:
    """Yields each job's number with function(job), as it is done; Raised or NotRun in its place.

    Args:
        function: from an importable module; it, the jobs and the results must pickle.
        jobs: in the order in which they are run.
        deadline: after which no job goes on.
        longest: seconds that one job may take; the first of a process besides what its imports take.
        log: where the children's words go; None for where this process's go.
    """
    done = 0
    while done < len(jobs):
        if deadline.left <= 0:
            yield done, NotRun()
            done += 1
            continue
        with tempfile.TemporaryDirectory() as name:
            child = _Child(Path(name), function, jobs[done:], log)
            for result in child.results(deadline, longest):
                yield done, result
                done += 1


class _Child:
    """One process, and the folder that it leaves its results in, a file each."""

    def __init__(
        self, folder: Path, function: Callable[[Any], Any], jobs: Sequence[Any], log: IO[str] | None
    ) -> None:
        self.folder, self.jobs = folder, len(jobs)
        (folder / "call").write_bytes(pickle.dumps((function, list(jobs))))
        command = [sys.executable, "-m", "benchmarks.device.worker", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def results(self, deadline: Deadline, longest: float) -> Iterator[Any]:
        """What the jobs come to, up to the first that takes the process with it."""
        try:
            for number in range(self.jobs):
                result = self._await(number, deadline.within(longest), deadline)
                yield result
                if isinstance(result, NotRun) or self.process.poll() is not None:
                    return
        finally:
            self.process.kill()
            self.process.wait()

    def _await(self, number: int, limit: Deadline, deadline: Deadline) -> Any:
        path = self.folder / str(number)
        while True:
            ended = self.process.poll()  # before looking for the file, which may come last
            if path.exists():
                return pickle.loads(path.read_bytes())
            if ended is not None:
                return Raised(f"the process ended with code {ended}")
            if limit.left <= 0:
                if deadline.left <= 0:
                    return NotRun()
                self.process.kill()
                self.process.wait()
                return Raised("it took too long and was stopped")
            time.sleep(_POLL)
