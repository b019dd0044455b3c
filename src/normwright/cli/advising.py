"""What the commands that give advice do alike: look, write the page and print."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from normwright.cli.acting import Report
from normwright.cli.outputs import check_output
from normwright.cli.stopping import stops_told
from normwright.cli.user_errors import user_errors_shown
from normwright.errors import OptionError

if TYPE_CHECKING:
    from normwright.cli.progress import Display


@dataclass(frozen=True)
class Advise:
    """One command.

    Args:
        out: the page to write, or None.
        force, as_json: see the options of these names.
        threads: CPU threads; None for PyTorch's own choice.
    """

    out: Path | None
    force: bool
    as_json: bool
    threads: int | None

    def run(self, look: Callable[[Display], Any], write: Callable[[Any, Path], None]) -> None:
        """Looks, writes the page if one is asked for, and prints.

        Args:
            look: finds the advice, a dataclass of plain values with a `table()`.
            write: writes its page.
        """
        self._check_out()
        with stops_told():
            found = self._look(look)
            if self.out is not None:
                write(found, self.out)
        self._print(found)

    def _look(self, look: Callable[[Display], Any]) -> Any:
        from normwright.cli.progress import display_on

        display = display_on(sys.stderr)
        with user_errors_shown({}, as_json=self.as_json), contextlib.closing(display):
            try:
                self._set_threads()
                return look(display)
            finally:
                display.close()  # before a traceback is shown

    def _set_threads(self) -> None:
        if self.threads is None:
            return
        if self.threads < 1:
            raise OptionError(f"--threads must be at least 1, but is {self.threads}")
        import torch

        torch.set_num_threads(self.threads)

    def _check_out(self) -> None:
        """Says before the work what would be said after it."""
        if self.out is not None:
            check_output("--out", self.out, (".html",), replace=self.force)

    def _print(self, found: Report) -> None:
        from normwright.cli.tables import print_json, print_table

        if self.as_json:
            print_json(dataclasses.asdict(found))  # type: ignore[call-overload]
        else:
            print_table(found.table())
        if self.out is not None:
            typer.echo(f"written: {self.out}", err=self.as_json)
