"""`normwright claims show`: everything about one claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from normwright.cli.claims_options import AsJson, Out, claims_of, described, records_in
from normwright.network.counting import how_many

if TYPE_CHECKING:
    from normwright.lab.book.choice import ChosenRate
    from normwright.lab.book.claim import Claim
    from normwright.lab.book.record import ClaimRecord


def show(
    number: Annotated[str, typer.Argument(help="The claim's number.", metavar="INT", show_default=False)],
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Tell everything about one claim: what is predicted, how it is tested, and what came out."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from normwright.cli.tables import print_json

    (claim,) = claims_of([number])
    record = records_in(out).get(claim.number)
    if as_json:
        print_json(described(claim) | {"record": None if record is None else dataclasses.asdict(record)})
        return
    console = Console()
    console.print(Text(f"Claim {claim.number}: {claim.sentence}", "bold"))
    for head, paragraphs in _parts(claim, record):
        console.print()
        console.print(Text(head, "bold"))
        for paragraph in paragraphs:
            console.print(Padding(Text(paragraph), (0, 0, 0, 2), expand=False))


def _parts(claim: Claim, record: ClaimRecord | None) -> Iterator[tuple[str, list[str]]]:
    """Headings, each with the paragraphs below it."""
    from normwright.lab.book import words

    yield (
        "Predicted",
        [f"{p.says} ({words.predicted(p.at_least, p.limit, p.unit)})" for p in claim.predictions],
    )
    yield "Recipe", [claim.recipe]
    yield "Measure", [claim.measure]
    yield "Conditions", [claim.conditions]
    yield ("Said by, and contested by" if claim.contested else "Said by"), list(claim.references)
    if record is None:
        yield "Not run yet", [f"normwright claims run {claim.number}"]
        return
    yield "Found", [_found(record), *_outcomes(record), *record.notes]
    if record.rates:
        yield "Learning rates, chosen on validation data", list(map(_chosen, record.rates))
    yield "What it means for practice", [record.practice]
    yield "Cost", [f"{words.cost(record.cost)}; {record.machine}"]
    yield "Made by", [record.command]


def _found(record: ClaimRecord) -> str:
    from normwright.lab.book import words

    size = how_many(record.seeds, "seed") + (", quick" if record.quick else "")
    return f"{words.claim_standing(record)} ({size})"


def _chosen(chosen: ChosenRate) -> str:
    from normwright.lab.book.rate_words import rate, trend, tried

    doubt = trend(chosen)
    line = f"{chosen.side}: {rate(chosen.rate)} of {tried(chosen)}"
    return f"{line} ({doubt})" if doubt else line


def _outcomes(record: ClaimRecord) -> Iterator[str]:
    from normwright.lab.book import words

    for outcome in record.outcomes:
        found = (
            f"{outcome.says}: {words.standing(outcome.verdict, outcome.leaning)}, {words.effect(outcome)}; "
            f"seed by seed {words.values(outcome)}."
        )
        yield " ".join(filter(None, (found, words.width(outcome), words.bounds(outcome))))
