"""`normwright claims run`: trains, measures and judges, and makes the book."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normwright.cli.claims_options import OUT, AsJson, claims_of
from normwright.cli.outputs import folder
from normwright.cli.stopping import stops_told
from normwright.network.counting import how_many

if TYPE_CHECKING:
    from normwright.lab.book.record import ClaimRecord
    from normwright.network.table import Table

EXAMPLES = """\
[bold]Examples[/bold]

One claim, and one paragraph on what it means:
  normwright claims run 4

The whole book at the reduced size, which leans but gives no verdict:
  normwright claims run --all --quick

The whole book in a folder of its own, two runs at a time:
  normwright claims run --all --jobs 2 --out book
"""


def run(
    numbers: Annotated[
        list[str] | None,
        typer.Argument(
            help="Of the claims; `normwright claims` lists them.", metavar="[INT]...", show_default=False
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every claim.")] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A reduced size with 4 seeds: it leans, and gives no verdict."),
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of each claim; a verdict needs 5. [dim](5, or 4 for --quick)[/dim]",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time. [dim](one per core)[/dim]", show_default=False),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the book; what is finished is kept in it.", parser=folder, metavar="PATH"
        ),
    ] = Path(OUT),
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where data files are looked for first. [dim](NORMWRIGHT_DATA)[/dim]", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run claims again, and judge each by the written rule.

    The same command goes on where an earlier one was stopped, and does nothing twice.
    """
    if all_ == bool(numbers):
        raise typer.BadParameter("either numbers of claims or --all: `normwright claims` lists them")
    chosen = None if all_ else [claim.number for claim in claims_of(numbers or [])]
    judged = 0

    def left() -> str:
        told = f"{how_many(judged, 'judged claim')} and " if judged else ""
        return f"{told}all that is finished is kept in {out}; run the same command again to go on"

    def on_record(record: ClaimRecord) -> None:
        nonlocal judged
        judged += 1
        display.stage(_line(record))

    from normwright.cli.progress import display_on
    from normwright.report.claims_book import run_claims

    display = display_on(sys.stderr)
    # What an experiment prints must not get between the JSON.
    output = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    with stops_told(left), output, contextlib.closing(display):
        records = run_claims(
            chosen,
            quick=quick,
            seeds=seeds,
            jobs=jobs,
            out=out,
            data_dir=data_dir,
            on_stage=display.stage,
            on_progress=display.runs,
            on_record=on_record,
        )
    _print(records, out, as_json)


def _line(record: ClaimRecord) -> str:
    from normwright.lab.book import words

    standing, some = words.standing(record.verdict, record.leaning), words.share(record)
    by = f" ({some})" if some else ""
    return f"claim {record.number}, {standing}{by}: {words.effects(record)}"


def _print(records: Sequence[ClaimRecord], out: Path, as_json: bool) -> None:
    from normwright.cli.claims_listing import entry_of, print_listing
    from normwright.cli.tables import print_json
    from normwright.report.claims_book import BOOK

    if as_json:
        print_json([dataclasses.asdict(record) for record in records])
    else:
        print_listing(_table(records), [entry_of(record, cost=True) for record in records])
        typer.echo(f"book: {out / BOOK}")


def _table(records: Sequence[ClaimRecord]) -> Table:
    from normwright.lab.book import words
    from normwright.network.table import Table

    rows = tuple(
        (
            str(record.number),
            record.sentence,
            words.claim_standing(record),
            words.effects(record),
            words.cost(record.cost),
        )
        for record in records
    )
    columns = ("no.", "claim", words.heading(records), "effect, with its 95 % interval", "cost")
    return Table(words.counted(records), columns, rows)
