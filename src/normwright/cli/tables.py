"""A report on the terminal: its table, or its values as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from normwright.network.table import Table


def print_table(table: Table) -> None:
    """Prints a table: fitted to a terminal, or to a file or a pipe with one line a row."""
    if not sys.stdout.isatty():
        sys.stdout.write(f"{table}\n")
        return
    console = Console()
    console.print(Text(table.summary, "bold"))
    if table.rows:
        console.print(_fitted(table))
    for note in table.notes:
        console.print(Text(note))


def print_json(record: Any) -> None:
    """Prints plain values. JSON has no infinity and no NaN: they become null."""
    finite = json.loads(json.dumps(record), parse_constant=lambda name: None)
    sys.stdout.write(json.dumps(finite, indent=2, allow_nan=False) + "\n")


def _fitted(table: Table) -> RichTable:
    # A column without a word is left out, as in the table's own text.
    kept = [place for place in range(len(table.columns)) if any(row[place] for row in table.rows)]
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place in kept:
        shown.add_column(Text(table.columns[place]), overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(row[place]) for place in kept))
    return shown
