"""The book of claims as a page: records in, one HTML file out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from normwright.errors import OptionError
from normwright.lab.book import rate_words, words
from normwright.lab.book.choice import ChosenRate
from normwright.lab.book.record import ClaimRecord, Outcome
from normwright.lab.book.verdict import LEAST_SEEDS
from normwright.report.claims_figure import claim_panel
from normwright.report.claims_scale import charts
from normwright.report.claims_standing import STANDINGS, Standing, standing_of
from normwright.report.files import write_whole
from normwright.report.filling import filled
from normwright.report.sections import Panel


@dataclass(frozen=True)
class Entry:
    """A claim as the page shows it.

    Args:
        record: what came out.
        standing: its verdict, or what it leans to.
        stands: the same in words, with how many of its predictions; `share` is these alone, or "".
        effects: of its predictions, in words.
        outcomes: its predictions.
        panel: its plot, or None.
        rates: that were chosen for its sides, in words.
        cost: in words.
    """

    record: ClaimRecord
    standing: Standing
    stands: str
    share: str
    effects: tuple[str, ...]
    outcomes: tuple[Prediction, ...]
    panel: Panel | None
    rates: tuple[Rate, ...]
    cost: str


@dataclass(frozen=True)
class Prediction:
    """One prediction of a claim, in words; `notes` are on what its interval cannot tell."""

    says: str
    standing: Standing
    effect: str
    limit: str
    values: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Rate:
    """The learning rate that was chosen for a side, in words; `trend` only where the choice is in doubt."""

    side: str
    rate: str
    tried: str
    trend: str


@dataclass(frozen=True)
class Group:
    """The claims that came out alike."""

    standing: Standing
    entries: tuple[Entry, ...]


def render(records: Sequence[ClaimRecord]) -> str:
    """The book as one self-contained HTML page, a pure function of the records.

    An overview, and a section for each claim that its address opens; the text needs no JavaScript. Plotly's
    script, the styles and all data are in the page; its security policy lets it load nothing and run no
    script but its own. Every name is escaped.

    Raises:
        OptionError: there is no record.
    """
    if not records:
        raise OptionError(
            "the book is made from the records of claims that were run, but there is none: "
            "run some by `normwright claims run`"
        )
    entries = tuple(_entry(record) for record in records)
    panels = charts(records)
    drawn = {row.standing for panel in panels for row in panel.rows}
    return filled(
        "claims.html.j2",
        styles=("doctor.css", "claims.css"),
        entries=entries,
        groups=_groups(entries),
        counted=words.counted(records),
        charts=panels,
        marks=[standing for standing in STANDINGS if standing in drawn],
        least_seeds=LEAST_SEEDS,
        quick=[entry for entry in entries if not entry.standing.firm],
    )


def write(records: Sequence[ClaimRecord], path: Path) -> None:
    """Writes the page; at every moment `path` holds a whole page, the old one or the new.

    Raises:
        OptionError: there is no record.
        StoreError: the file cannot be written (no such folder, no room, no permission).
    """
    write_whole(render(records), path)


def _entry(record: ClaimRecord) -> Entry:
    return Entry(
        record,
        standing_of(record),
        words.claim_standing(record),
        words.share(record),
        tuple(words.effect(outcome) for outcome in record.outcomes),
        tuple(_prediction(outcome) for outcome in record.outcomes),
        claim_panel(record),
        tuple(_rate(chosen) for chosen in record.rates),
        words.cost(record.cost),
    )


def _prediction(outcome: Outcome) -> Prediction:
    return Prediction(
        outcome.says,
        standing_of(outcome),
        words.effect(outcome),
        words.predicted(outcome.at_least, outcome.limit, outcome.unit),
        words.values(outcome),
        tuple(filter(None, (words.width(outcome), words.bounds(outcome)))),
    )


def _rate(chosen: ChosenRate) -> Rate:
    return Rate(chosen.side, rate_words.rate(chosen.rate), rate_words.tried(chosen), rate_words.trend(chosen))


def _groups(entries: Sequence[Entry]) -> tuple[Group, ...]:
    """The claims by how they stand; a verdict that no claim has is shown, too, where there are verdicts."""
    any_firm = any(entry.standing.firm for entry in entries)
    groups = [
        Group(standing, tuple(entry for entry in entries if entry.standing == standing))
        for standing in STANDINGS
    ]
    return tuple(group for group in groups if group.entries or (group.standing.firm and any_firm))
