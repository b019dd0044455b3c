"""The store: which runs there are, who works on each, and what came out."""

from __future__ import annotations

import json
import math
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from normwright.lab.recipe import Recipe
from normwright.lab.run import RunResult
from normwright.lab.store import checkpoint
from normwright.lab.store.arrays import array_from_row, array_row, result_from_rows, result_rows
from normwright.lab.store.file import connect, explained, writing
from normwright.lab.store.process import Claim, Process, this_process
from normwright.lab.store.text import encodable

FILE = "experiment.sqlite"

# Beside the arrays of the run's result, which a normwright reads that does not know of it.
_ANSWERS = "test.answers"

_KNOWN = "SELECT hash FROM run WHERE hash IN (SELECT value FROM json_each(?))"
_DONE = "SELECT hash, steps FROM result WHERE hash IN (SELECT value FROM json_each(?))"
_HELD = (
    "SELECT hash, host, pid, started, heartbeat, step, steps FROM claim"
    " WHERE hash IN (SELECT value FROM json_each(?))"
)


class Store:
    """An experiment in a folder: `experiment.sqlite`, and `checkpoints/`.

    A run is named by its recipe's hash. Any number of processes may open one folder at once; each
    write is one transaction. One Store belongs to one thread. Every method raises StoreError where
    the file cannot be read or written, with what to do.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder)) as store:
        ...     store.set_meta("command", "normwright compare")
        ...     store.meta("command")
        'normwright compare'
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._connection = connection
        self._process = this_process()
        # Two Stores of one process (a notebook's cells, two threads) must not give back each other's runs.
        self._owner = uuid.uuid4().hex

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Opens the experiment in `folder`, making folder and file where there are none.

        Raises:
            StoreError: the file is foreign, newer, half-written or damaged, or cannot be made.
                What is there is left as it is.
        """
        return cls(folder, connect(folder / FILE))

    def close(self) -> None:
        """Closes the file, after giving back what this store still holds."""
        # A Ctrl-C may have cut a release short, and this process, alive, would hold the run for ever.
        # Where the disk refuses, the error that came before says so.
        with suppress(sqlite3.Error):
            if self._connection.execute("SELECT 1 FROM claim WHERE owner = ?", (self._owner,)).fetchone():
                with writing(self._connection):
                    self._connection.execute("DELETE FROM claim WHERE owner = ?", (self._owner,))
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, recipes: Iterable[Recipe]) -> None:
        """Writes down runs to be done; those that are known already stay as they are."""
        wanted = {recipe.hash: recipe.to_json() for recipe in recipes}
        known = {row[0] for row in self._rows(_KNOWN, json.dumps(list(wanted)))}
        missing = [row for row in wanted.items() if row[0] not in known]
        if missing:  # else a finished experiment could not be read where nothing can be written
            with self._writing() as connection:
                connection.executemany("INSERT INTO run VALUES (?, ?) ON CONFLICT DO NOTHING", missing)

    def finished(self, runs: Sequence[str]) -> set[str]:
        """Those of `runs` that have a result."""
        return {row[0] for row in self._rows(_DONE, json.dumps(list(runs)))}

    def pending(self, runs: Sequence[str]) -> list[str]:
        """Those of `runs` that are not finished and in nobody's hands, in the order given."""
        return [run for run, state, _, _ in self.status(runs) if state == "pending"]

    def status(self, runs: Sequence[str]) -> list[tuple[str, str, int, int]]:
        """(run, "pending" | "running" | "finished", step, steps) of each of `runs`, in the order given."""
        claims = self.claims(runs)
        done: dict[str, int] = dict(self._rows(_DONE, json.dumps(list(runs))))
        return [_state(run, claims.get(run), done.get(run)) for run in runs]

    def claim(self, runs: Sequence[str]) -> Recipe | None:
        """Takes the first pending one of `runs` for this process; None where none is pending.

        No two claims take the same run. The run of a process of this host that died is pending at
        once; the run of another host, after ten minutes without a sign of it.
        """
        if not self.pending(runs):  # without the write lock, because whoever waits asks again and again
            return None
        with self._writing():
            for run in self.pending(runs):
                recipe = self._text("SELECT recipe FROM run WHERE hash = ?", run)
                if recipe is not None:
                    self._take(run)
                    return Recipe.from_json(recipe)
        return None

    def claims(self, runs: Sequence[str]) -> dict[str, Claim]:
        """Those of `runs` that are in the hands of a live process."""
        return {run: claim for run, claim in self._all_claims(runs).items() if claim.is_alive()}

    def progress(self, run: str, step: int, steps: int) -> bool:
        """Notes how far a claimed run is, and that its process is alive.

        Returns:
            Whether the run is still this store's: False after it was taken for dead and given away.
        """
        with self._writing() as connection:
            cursor = connection.execute(
                "UPDATE claim SET step = ?, steps = ?, heartbeat = ? WHERE hash = ? AND owner = ?",
                (step, steps, time.time(), run, self._owner),
            )
        return cursor.rowcount == 1

    def release(self, run: str) -> None:
        """Gives back a run that this store claimed; does nothing where it did not."""
        with self._writing() as connection:
            connection.execute("DELETE FROM claim WHERE hash = ? AND owner = ?", (run, self._owner))

    def release_dead(self, runs: Sequence[str]) -> None:
        """Gives back those of `runs` whose process died."""
        with self._writing() as connection:
            dead = [(run,) for run, claim in self._all_claims(runs).items() if not claim.is_alive()]
            connection.executemany("DELETE FROM claim WHERE hash = ?", dead)

    def finish(self, recipe: Recipe, result: RunResult) -> None:
        """Keeps a run's result and ends its claim; a run that has a result already keeps its first."""
        fields, arrays = result_rows(result)
        run = recipe.hash
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO run VALUES (?, ?) ON CONFLICT DO NOTHING", (run, recipe.to_json())
            )
            connection.execute("DELETE FROM claim WHERE hash = ?", (run,))
            kept = connection.execute(
                "INSERT INTO result VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (run, len(result.loss), fields)
            )
            if kept.rowcount == 1:
                rows = [(run, name, *row) for name, row in arrays.items()]
                connection.executemany("INSERT INTO array VALUES (?, ?, ?, ?, ?)", rows)

    def result(self, run: str) -> RunResult | None:
        """A run's result; None where it is not finished."""
        # In one transaction, so that fields and arrays belong together even where a reopen comes between.
        with explained(self.path):
            self._connection.execute("BEGIN")
            try:
                fields = self._rows("SELECT fields FROM result WHERE hash = ?", run)
                rows = self._rows("SELECT name, dtype, shape, data FROM array WHERE hash = ?", run)
            finally:
                self._connection.execute("ROLLBACK")
        return result_from_rows(fields[0][0], {row[0]: row[1:] for row in rows}) if fields else None

    def reopen(self, run: str) -> None:
        """Forgets a run's result and test, so that it is done again: its checkpoint was lost."""
        with self._writing() as connection:
            connection.execute("DELETE FROM array WHERE hash = ?", (run,))
            connection.execute("DELETE FROM test WHERE hash = ?", (run,))
            connection.execute("DELETE FROM result WHERE hash = ?", (run,))

    def fail(self, run: str, text: str) -> None:
        """Keeps the traceback of an exception in a claimed run and gives the run back; it stays pending."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO failure VALUES (?, ?)", (run, encodable(text)))
            connection.execute("DELETE FROM claim WHERE hash = ? AND owner = ?", (run, self._owner))

    def failure(self, run: str) -> str | None:
        """The traceback of the run's last exception, kept even after it succeeded; None where it had none."""
        return self._text("SELECT traceback FROM failure WHERE hash = ?", run)

    def record_test(self, run: str, metric: float) -> None:
        """Keeps a run's metric on the test set; the first one stays."""
        with self._writing() as connection:
            connection.execute("INSERT INTO test VALUES (?, ?) ON CONFLICT DO NOTHING", (run, float(metric)))

    def record_answers(self, run: str, right: npt.NDArray[np.bool_]) -> None:
        """Keeps which test samples a finished run gets right, (N,), as bits; the first ones stay."""
        row = (run, _ANSWERS, *array_row(np.packbits(right)))
        with self._writing() as connection:
            connection.execute("INSERT INTO array VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)

    def answers(self, run: str, samples: int) -> npt.NDArray[np.bool_] | None:
        """Which of so many test samples a run gets right, (N,); None where that was not kept."""
        rows = self._rows("SELECT dtype, shape, data FROM array WHERE hash = ? AND name = ?", run, _ANSWERS)
        return np.unpackbits(array_from_row(rows[0]), count=samples).astype(bool) if rows else None

    def test(self, run: str) -> float | None:
        """A run's metric on the test set; None where it has not been taken."""
        rows = self._rows("SELECT metric FROM test WHERE hash = ?", run)
        if not rows:
            return None
        return math.nan if rows[0][0] is None else float(rows[0][0])

    def set_meta(self, key: str, value: str) -> None:
        """Keeps a text under a name, in place of an earlier one."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def meta(self, key: str) -> str | None:
        """The text under a name; None where there is none."""
        return self._text("SELECT value FROM meta WHERE key = ?", key)

    def checkpoint_path(self, run: str) -> Path:
        """Where a run's weights lie."""
        return self.folder / "checkpoints" / f"{run}.safetensors"

    def save_checkpoint(self, run: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes a run's weights, whole or not at all."""
        checkpoint.save(self.checkpoint_path(run), tensors)

    def load_checkpoint(self, run: str) -> dict[str, Tensor]:
        """Reads a run's weights.

        Raises:
            StoreError: they are missing, half-written or unreadable; `reopen` the run to make them again.
        """
        return checkpoint.load(self.checkpoint_path(run))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with explained(self.path), writing(self._connection):
            yield self._connection

    def _rows(self, query: str, *values: str) -> list[Any]:
        with explained(self.path):
            return self._connection.execute(query, values).fetchall()

    def _text(self, query: str, name: str) -> str | None:
        rows = self._rows(query, name)
        return str(rows[0][0]) if rows else None

    def _take(self, run: str) -> None:
        me = self._process
        row = (run, self._owner, me.host, me.pid, me.started, time.time(), 0, 0)
        self._connection.execute("INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _all_claims(self, runs: Sequence[str]) -> dict[str, Claim]:
        return {
            run: Claim(Process(host, pid, started), heartbeat, step, steps)
            for run, host, pid, started, heartbeat, step, steps in self._rows(_HELD, json.dumps(list(runs)))
        }


def _state(run: str, claim: Claim | None, done: int | None) -> tuple[str, str, int, int]:
    if done is not None:
        return run, "finished", done, done
    if claim is not None:
        return run, "running", claim.step, claim.steps
    return run, "pending", 0, 0
