"""The verdicts of the book as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

from normwright.lab.book import words
from normwright.lab.book.record import ClaimRecord, Outcome
from normwright.report.claims_standing import standing_of
from normwright.report.markdown import literal

_LEGEND = (
    "An effect is the mean over seeds, with its 95 % interval in brackets. A prediction is *supported* where "
    "the whole interval lies on the predicted side of the limit, *refuted* where it lies on the other side, "
    "and else *not supported*: these seeds cannot tell. A claim is supported where all its predictions are, "
    "and refuted where one is; below such a verdict stands how many of its predictions came out so."
)
_BOUNDS = (
    "*At least* or *at most* before an effect says that some of its measures are bounds, and that the truth "
    "lies on that side of them. Such an interval can support what lies on that side, and not refute it."
)
_WIDTH = (
    "An interval without width comes of a measure that is read off a grid or counted, and was the same with "
    "every seed: it does not tell what lies between two steps of the grid."
)
_LEANING = (
    "A *leaning* is what the rule would say of a quick run, or of one with fewer than five seeds: it is no "
    "verdict."
)


def to_markdown(records: Sequence[ClaimRecord], *, picture: str = "", page: str = "") -> str:
    """The verdicts as GitHub-flavoured Markdown; every sentence is escaped.

    Args:
        records: of the claims.
        picture, page: files beside the table that it shows and names, or "".
    """
    leaning = any(not standing_of(record).firm for record in records)
    parts = ["# The book of claims", literal(words.counted(records))]
    if picture:
        parts.append(f"![How each claim came out]({picture})")
    if page:
        parts.append(f"[{literal(page)}]({page}) has the plot, the recipe and the measure of each.")
    bounds = any(words.bounds(outcome) for record in records for outcome in record.outcomes)
    narrow = any(words.width(outcome) for record in records for outcome in record.outcomes)
    notes = ((_BOUNDS, bounds), (_WIDTH, narrow), (_LEANING, leaning))
    parts += [_table(records), _LEGEND, *(note for note, needed in notes if needed)]
    spent = sum(r.cost.training_seconds + r.cost.measuring_seconds for r in records)
    machines = dict.fromkeys(record.machine for record in records)
    made = "; ".join(literal(machine) for machine in machines)
    parts.append(
        f"Cost: {words.duration(spent)} on one core in all; runs that claims share are counted in each."
        + (f" Measured on: {made}." if made else "")
    )
    return "\n\n".join(parts) + "\n"


def _table(records: Sequence[ClaimRecord]) -> str:
    heads = ("No.", "Claim", words.heading(records).capitalize(), "Effect", "Predicted", "Cost")
    rows = [_cells(record) for record in records]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ("---:", *["---"] * 5), *rows))


def _cells(record: ClaimRecord) -> tuple[str, ...]:
    found, predicted = (
        "<br>".join(literal(part(outcome)) for outcome in record.outcomes) for part in (_found, _predicted)
    )
    standing = standing_of(record)
    label = f"**{standing.label}**" if standing.firm else f"*{standing.label}*"
    share = words.share(record)
    return (
        str(record.number),
        literal(record.sentence),
        f"{label}<br>{share}" if share else label,
        found,
        predicted,
        literal(words.cost(record.cost).removesuffix(" on one core")),
    )


def _found(outcome: Outcome) -> str:
    return words.effect(outcome)


def _predicted(outcome: Outcome) -> str:
    return words.predicted(outcome.at_least, outcome.limit, outcome.unit)
