"""A worker process: `python -m normwright.lab.worker`, started by `lab.crew` and told by it what to do.

The task comes as JSON on the standard input. The standard output is the journal, one JSON object per
line, from which the parent learns how the worker ended:

    {"claimed": run}        it began this run
    {"failed": text}        an exception in that run
    {"store": text}         the experiment cannot be read or written
    {"left": true}          nothing is left to claim, or it was asked to stop

A worker that ends without one of the last three died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from normwright.errors import RunError, StoreError
from normwright.lab.recipe import Recipe
from normwright.lab.store import Store
from normwright.lab.task import Task
from normwright.lab.work import OnStep, Trained, run_function, work


def main() -> int:
    """Does the task on the standard input; returns the exit status."""
    signals: list[int] = []
    # A flag and no exception: the run at hand is given back between two steps, in a known state.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signals.append(number))
    journal = _journal()
    task = Task(**json.load(sys.stdin))
    sys.path[:] = task.path
    try:
        _work(task, journal, signals)
    except RunError as error:
        _note(journal, failed=str(error))
        return 1
    except StoreError as error:
        _note(journal, store=str(error))
        return 1
    _note(journal, left=True)
    return 0


def _work(task: Task, journal: TextIO, signals: list[int]) -> None:
    run = run_function(task.run)
    directory = None if task.directory is None else Path(task.directory)

    def train_one(recipe: Recipe, on_step: OnStep) -> Trained:
        return run(recipe, directory=directory, on_step=on_step)

    with Store.open(Path(task.folder)) as store:
        work(
            store,
            task.runs,
            train_one,
            on_claim=lambda recipe: _note(journal, claimed=recipe.hash),
            should_stop=lambda: bool(signals) or os.getppid() != task.parent,
        )


def _journal() -> TextIO:
    """The standard output, kept for the parent; what a user's code prints goes to the log."""
    journal = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return journal


def _note(journal: TextIO, **entry: Any) -> None:
    journal.write(json.dumps(entry) + "\n")
    journal.flush()


if __name__ == "__main__":
    sys.exit(main())
