"""Claims on a terminal, a block each: their sentences are too long for the columns of a table there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from normwright.cli.tables import print_table
from normwright.lab.book import words
from normwright.lab.book.record import ClaimRecord
from normwright.network.table import Table


@dataclass(frozen=True)
class Entry:
    """A claim, how it stands ("" where it was not run), and what is said of each of its predictions."""

    number: int
    sentence: str
    stands: str
    predictions: tuple[str, ...]


def entry_of(record: ClaimRecord, *, cost: bool = False) -> Entry:
    """A claim that was run; each of several predictions has a standing of its own."""
    several = len(record.outcomes) > 1
    stands = words.claim_standing(record)
    return Entry(
        record.number,
        record.sentence,
        f"{stands}; {words.cost(record.cost)}" if cost else stands,
        tuple(
            f"{outcome.says}: "
            + (f"{words.standing(outcome.verdict, outcome.leaning)}, " if several else "")
            + words.effect(outcome)
            for outcome in record.outcomes
        ),
    )


def print_listing(table: Table, entries: Sequence[Entry]) -> None:
    """Prints the claims: blocks on a terminal, and into a file or a pipe the table, one line a claim."""
    if not sys.stdout.isatty():
        print_table(table)
        return
    console = Console()
    console.print(Text(table.summary, "bold"))
    for entry in entries:
        console.print()
        console.print(_hanging(f"{entry.number:>3}  ", Text(entry.sentence, "bold")))
        if entry.stands:
            console.print(_hanging(" " * 5, Text(entry.stands)))
        for prediction in entry.predictions:
            console.print(_hanging(" " * 5 + "– ", Text(prediction)))
    console.print()
    for note in table.notes:
        console.print(Text(note))


def _hanging(head: str, text: Text) -> RichTable:
    """A head, and beside it a text whose lines all begin behind it."""
    grid = RichTable.grid()
    grid.add_column(width=len(head), no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(head), text)
    return grid
