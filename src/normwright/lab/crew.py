"""The worker processes of one parent: hired, watched and stopped.

Not `multiprocessing`: it runs the user's script again in every child, and a script need not have a
`__main__` guard.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from normwright.lab.task import Task

# How long a worker may take to end its training step and give its run back, before it is killed.
GRACE_SECONDS = 5.0

LOG_CHARACTERS = 4000


@dataclass(frozen=True)
class Departure:
    """How a worker ended.

    Args:
        run: hash of the last run that it began; None where it began none.
        failed: the message of an exception in that run.
        store: the message of a StoreError.
        died: how it died without a word, as in "was killed by SIGKILL".
        log: the end of what it printed.
    """

    run: str | None
    failed: str | None
    store: str | None
    died: str | None
    log: str


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    journal: IO[bytes]
    log: IO[bytes]
    files: ExitStack


class Crew:
    """The workers on one experiment; leaving the `with` stops them.

    Args:
        folder: of the experiment.
        runs: hashes of the recipes to work on.
        run: the run function, as `package.module:function`.
        directory: where data are looked for; None for the usual places.
        ray: address of the Ray cluster that the run function trains on, which it finds as RAY_ADDRESS.
    """

    def __init__(
        self,
        folder: Path,
        runs: Sequence[str],
        *,
        run: str,
        directory: Path | None,
        ray: str | None = None,
    ) -> None:
        self._task = Task(
            folder=str(folder),
            runs=tuple(runs),
            run=run,
            directory=None if directory is None else str(directory),
            parent=os.getpid(),
            path=absolute_path(),
        )
        self._environment = child_environment() | ({} if ray is None else {"RAY_ADDRESS": ray})
        self._workers: list[_Worker] = []

    @property
    def pids(self) -> set[int]:
        """The pids of the workers that have not been seen to end."""
        return {worker.process.pid for worker in self._workers}

    def hire(self) -> None:
        """Starts one worker."""
        # Files and not pipes: nobody reads while a worker writes, and a full pipe would stop it for ever.
        with ExitStack() as files, tempfile.TemporaryFile() as task:
            journal = files.enter_context(tempfile.TemporaryFile())
            log = files.enter_context(tempfile.TemporaryFile())
            task.write(self._task.to_json().encode())
            task.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-m", "normwright.lab.worker"],
                stdin=task,
                stdout=journal,
                stderr=log,
                env=self._environment,
            )
            self._workers.append(_Worker(process, journal, log, files.pop_all()))

    def departed(self) -> list[Departure]:
        """The workers that ended since the last call."""
        gone = [worker for worker in self._workers if worker.process.poll() is not None]
        self._workers = [worker for worker in self._workers if worker not in gone]
        return [_departure(worker) for worker in gone]

    def stop(self) -> None:
        """Asks all workers to give back their runs and leave, and kills those that do not."""
        try:
            for worker in self._workers:
                worker.process.terminate()
            deadline = time.monotonic() + GRACE_SECONDS
            for worker in self._workers:
                _wait(worker.process, deadline)
        finally:  # also on a second Ctrl-C
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.process.wait()
                worker.files.close()
            self._workers = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def absolute_path() -> tuple[str, ...]:
    """Where this process looks for modules."""
    return tuple(os.path.abspath(entry) for entry in sys.path)


def child_environment() -> dict[str, str]:
    """The environment in which a child finds the modules that this process finds, and no others."""
    # With -m and -c, Python looks into the current folder first, where a user's random.py would hide the
    # standard library's. Safe path forbids it; Python 3.10 does not know it.
    return os.environ | {"PYTHONPATH": os.pathsep.join(absolute_path()), "PYTHONSAFEPATH": "1"}


def _wait(process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return


def _departure(worker: _Worker) -> Departure:
    with worker.files:
        journal, log = _text(worker.journal), _text(worker.log)
    said: dict[str, str] = {}
    for line in journal.splitlines(keepends=True):
        if line.endswith("\n"):  # else it died in the middle of the line
            said |= json.loads(line)
    spoke = said.keys() & {"failed", "store", "left"}
    return Departure(
        run=said.get("claimed"),
        failed=said.get("failed"),
        store=said.get("store"),
        died=None if spoke else _death(worker.process.returncode),
        log=log[-LOG_CHARACTERS:],
    )


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _death(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    names = {int(number): number.name for number in signal.Signals}
    return f"was killed by {names.get(-status, f'signal {-status}')}"
