"""Batches that show how far they were read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from normwright.cli.lines import Lines
from normwright.network.counting import how_many

if TYPE_CHECKING:
    from normwright.lab.batches import Batches


class Counted:
    """The batches, with a bar on a terminal, or with lines.

    Lines tell of every tenth of the first reading, and of each further reading as a whole: there may be as
    many as the network has normalisers.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._readings = 0
        self._progress: Progress | None = None

    def __iter__(self) -> Iterator[Any]:
        self._readings += 1
        console = Console(stderr=True)
        if sys.stderr.isatty() and not console.is_dumb_terminal:
            return self._with_bar(console, self._readings)
        return self._with_lines(self._readings)

    def quietly(self) -> Iterator[Any]:
        """The batches without a bar or a line."""
        return iter(self._batches)

    def close(self) -> None:
        """Takes the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _with_bar(self, console: Console, reading: int) -> Iterator[Any]:
        if self._progress is None:
            # Without markup: it would read square brackets as its own. Gone at the end: the table says more.
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=console, expand=True, transient=True)
            self._progress.start()
        task = self._progress.add_task(_title(reading), total=self._batches.count)
        try:
            for batch in self._batches:
                yield batch
                self._progress.advance(task)
        finally:
            if self._progress is not None:
                self._progress.remove_task(task)

    def _with_lines(self, reading: int) -> Iterator[Any]:
        lines, total, told, done = Lines(sys.stderr), self._batches.count, 0, 0
        for batch in self._batches:
            yield batch
            done += 1
            if total and reading == 1 and (tenths := 10 * done // total) > told:
                told = tenths
                lines.stage(f"  {10 * tenths} %: {done} of {how_many(total, 'batch')}")
        if reading > 1 or not total:
            lines.stage(f"  {_title(reading)}: {done} read")


def _title(reading: int) -> str:
    return "batches" if reading == 1 else f"batches, reading {reading}"
