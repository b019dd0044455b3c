"""What the commands of `normwright claims` share: their options, and how they read numbers and records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normwright.cli.outputs import folder
from normwright.errors import OptionError, StoreError

if TYPE_CHECKING:
    from normwright.lab.book.claim import Claim
    from normwright.lab.book.record import ClaimRecord

OUT = "normwright-claims"


Out = Annotated[
    Path | None,
    typer.Option(
        help=f"Folder of the book, where records are looked for. [dim]({OUT})[/dim]",
        show_default=False,
        parser=folder,
        metavar="PATH",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; all else goes to the standard error.")]


def claims_of(numbers: Sequence[str]) -> list[Claim]:
    """The claims of these numbers; wrong usage, which tells of all, where there is none of a number."""
    from normwright.lab.book.claim import chosen_claims

    words = [number for number in numbers if not number.isdecimal()]
    wrong = [f"a claim is named by its number, but came {', '.join(map(repr, words))}"] if words else []
    chosen: list[Claim] = []
    try:
        chosen = chosen_claims([int(number) for number in numbers if number not in words])
    except OptionError as error:
        if len(words) < len(numbers):
            wrong.append(str(error))
    if wrong:
        raise typer.BadParameter("; ".join(wrong))
    return chosen


def records_in(out: Path | None, *, option: str = "--out") -> dict[int, ClaimRecord]:
    """The records of a book's folder, by number; the folder that records lie in may be named, too.

    Raises:
        StoreError: the folder was named and is none, or a file is not a record.
    """
    from normwright.lab.book.record import read_records
    from normwright.lab.book.run import RECORDS

    folder = Path(OUT) if out is None else out
    if out is not None and not out.is_dir():
        raise StoreError(f"{option} must be the folder of a book, but there is no folder {out}")
    inner = folder / RECORDS
    return {record.number: record for record in read_records(inner if inner.is_dir() else folder)}


def described(claim: Claim) -> dict[str, Any]:
    """What a claim says, as plain values."""
    names = ("number", "name", "sentence", "references", "recipe", "measure", "conditions", "contested")
    return {
        **{name: getattr(claim, name) for name in names},
        "predictions": [dataclasses.asdict(prediction) for prediction in claim.predictions],
        "practice": dict(claim.practice),
    }
