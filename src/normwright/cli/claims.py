"""`normwright claims`: what the literature says about normalisation, run again; a bare call lists it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import typer

from normwright.cli.claims_book import EXAMPLES as BOOK
from normwright.cli.claims_book import book
from normwright.cli.claims_options import AsJson, Out, described, records_in
from normwright.cli.claims_run import EXAMPLES as RUN
from normwright.cli.claims_run import run
from normwright.cli.claims_show import show
from normwright.errors import StoreError

if TYPE_CHECKING:
    from normwright.cli.claims_listing import Entry
    from normwright.lab.book.claim import Claim
    from normwright.lab.book.record import ClaimRecord
    from normwright.network.table import Table

EXAMPLES = """\
[bold]Examples[/bold]

Which claims there are, and what came out where they were run:
  normwright claims

Two of them again, at the reduced size:
  normwright claims run 4 7 --quick

All about one:
  normwright claims show 4
"""

app = typer.Typer(
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=RUN)(run)
app.command()(show)
app.command(epilog=BOOK)(book)


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def claims(context: typer.Context, out: Out = None, as_json: AsJson = False) -> None:
    """Run again what the literature says about normalisation, and judge it by a written rule.

    Without a command, lists every claim, what it predicts, and what came out where --out holds its record.
    """
    if context.invoked_subcommand is not None:
        if out is not None or as_json:
            given = "--json" if as_json else "--out"
            raise typer.BadParameter(
                f"{given} must stand behind the command: claims {context.invoked_subcommand} {given}"
            )
        return
    from normwright.cli.claims_listing import print_listing
    from normwright.cli.tables import print_json
    from normwright.lab.book.claim import all_claims

    known = list(all_claims().values())
    records = records_in(out)
    if out is not None and not records:
        raise StoreError(
            f"--out must hold records of claims, but {out} holds none: `normwright claims run` makes them"
        )
    if as_json:
        print_json([described(claim) | _outcome(records.get(claim.number)) for claim in known])
    else:
        print_listing(_table(known, records), [_entry(claim, records.get(claim.number)) for claim in known])


def _outcome(record: ClaimRecord | None) -> dict[str, Any]:
    """What came out of a claim, null where it was not run."""
    if record is None:
        return dict.fromkeys(("verdict", "leaning", "quick", "outcomes"))
    return {
        "verdict": record.verdict,
        "leaning": record.leaning,
        "quick": record.quick,
        "outcomes": [dataclasses.asdict(outcome) for outcome in record.outcomes],
    }


def _entry(claim: Claim, record: ClaimRecord | None) -> Entry:
    from normwright.cli.claims_listing import Entry, entry_of

    if record is not None:
        return entry_of(record)
    return Entry(claim.number, claim.sentence, "", tuple(p.says for p in claim.predictions))


def _table(known: list[Claim], records: dict[int, ClaimRecord]) -> Table:
    from normwright.lab.book import words
    from normwright.network.table import Table

    rows = []
    for claim in known:
        record = records.get(claim.number)
        rows.append(
            (
                str(claim.number),
                claim.sentence,
                "; ".join(prediction.says for prediction in claim.predictions),
                "" if record is None else words.claim_standing(record),
                "" if record is None else words.effects(record),
            )
        )
    judged = [records[claim.number] for claim in known if claim.number in records]
    summary = f"{words.claims(len(known))}. {words.counted(judged)}"
    note = "`normwright claims run NUMBER` runs one, and `normwright claims show NUMBER` tells all about it."
    if not records:
        note += " The project's own results are in docs/claims of its repository."
    columns = ("no.", "claim", "predicted", words.heading(judged), "effect, with its 95 % interval")
    return Table(summary, columns, tuple(rows), (note,))
