"""Batches that show how far they were read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from normwright.cli.lines import Lines

if TYPE_CHECKING:
    from normwright.lab.batches import Batches


class Counted:
    """The batches, with a bar on a terminal, or with a line about every tenth of them."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        console = Console(stderr=True)
        if sys.stderr.isatty() and not console.is_dumb_terminal:
            return self._with_bar(console)
        return self._with_lines()

    def _with_bar(self, console: Console) -> Iterator[Any]:
        columns = (TextColumn("batches"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, expand=True) as progress:
            yield from progress.track(self._batches, total=self._batches.count)

    def _with_lines(self) -> Iterator[Any]:
        lines, total, told = Lines(sys.stderr), self._batches.count, 0
        for done, batch in enumerate(self._batches, 1):
            yield batch
            tenths = 10 * done // total if total else 0
            if tenths > told:
                told = tenths
                lines.stage(f"  {10 * tenths} %: {done} of {total} batches")
