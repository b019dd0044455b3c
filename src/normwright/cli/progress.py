"""What a person sees while a comparison trains."""

from __future__ import annotations

from typing import Protocol, TextIO

from rich.console import Console

from normwright.cli.bars import Bars
from normwright.cli.lines import Lines
from normwright.cli.pace import Running


class Display(Protocol):
    """Shows the stages and the runs."""

    def stage(self, sentence: str) -> None:
        """A new part of the work begins."""

    def runs(self, done: int, total: int, running: Running) -> None:
        """So many runs are done, and these are under way."""

    def close(self) -> None:
        """Leaves the terminal as it was."""


def display_on(stream: TextIO) -> Display:
    """Bars where the stream is a terminal that can move its cursor, else lines."""
    console = Console(file=stream)
    return Bars(console) if stream.isatty() and not console.is_dumb_terminal else Lines(stream)
