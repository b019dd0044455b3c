"""The table of results: one group of rows per batch size, who leads in each marked as its `Lead` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normwright.lab.lead import LEVEL, SEEDS, UNFINISHED, is_above, is_equal
from normwright.lab.records import Comparison, Interval, Lead, Row
from normwright.report import quantities
from normwright.report.palette import Style, style_of
from normwright.report.sections import batch_sizes


@dataclass(frozen=True)
class Whisker:
    """An interval as a picture: places from 0 to 100 on the scale that the rows of one batch size share."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class TableRow:
    """A row as the page prints it; `*_range` is the 95 % interval, empty for a single seed.

    Args:
        mark: `best` for the winner; where there is none, `highest` for the highest mean, and `level` for
            what the seeds cannot tell from it; else "".
    """

    style: Style
    mark: str
    lr: str
    test: str
    test_range: str
    whisker: Whisker | None
    steps: str
    steps_range: str
    ratio: str
    ratio_range: str
    diverged: str
    any_diverged: bool
    milliseconds: str
    memory: str
    note: str

    @property
    def best(self) -> bool:
        """Whether it wins."""
        return self.mark == "best"


@dataclass(frozen=True)
class TableGroup:
    """The rows of one batch size."""

    batch_size: int
    rows: tuple[TableRow, ...]


def table(comparison: Comparison) -> tuple[TableGroup, ...]:
    """The rows of the comparison, by batch size, in the order asked for."""
    return tuple(_group(comparison, size) for size in batch_sizes(comparison))


def _group(comparison: Comparison, batch_size: int) -> TableGroup:
    rows = [row for row in comparison.rows if row.batch_size == batch_size]
    scale = _scale(rows)
    found = next(found for found in comparison.leads if found.batch_size == batch_size)
    return TableGroup(batch_size, tuple(_row(row, scale, _mark(row, rows, found)) for row in rows))


def _mark(row: Row, rows: Sequence[Row], found: Lead) -> str:
    """None where to be the highest is nothing: within chance, alone, or below one that diverged at times."""
    if row.norm == found.winner:
        return "best"
    if found.doubt not in (SEEDS, UNFINISHED, LEVEL) or row.norm not in (found.highest, *found.level):
        return ""
    highest = next(one for one in rows if one.norm == found.highest)
    if any(is_above(one, highest) for one in rows if one.test is not None):
        return ""
    if is_equal(row, highest):
        return "highest"
    return "" if found.doubt == SEEDS else "level"


def _row(row: Row, scale: tuple[float, float], mark: str) -> TableRow:
    return TableRow(
        style=style_of(row.norm),
        mark=mark,
        lr=quantities.rate(row.lr),
        test=quantities.metric(row.test.mean) if row.test else "all diverged",
        test_range=quantities.bounds(row.test),
        whisker=_whisker(row.test, scale),
        steps=quantities.count(row.steps.mean) if row.steps else _not_reached(row),
        steps_range=quantities.bounds(row.steps, "count"),
        ratio=quantities.times(row.ratio.mean if row.ratio else None),
        ratio_range=quantities.bounds(row.ratio, "times"),
        diverged=quantities.share(row.diverged),
        any_diverged=row.diverged > 0,
        milliseconds=quantities.milliseconds(row.milliseconds),
        memory=quantities.mebibytes(row.peak_bytes),
        note=f"undefined in {row.left_out} of {row.places} places, left out there" if row.left_out else "",
    )


def _not_reached(row: Row) -> str:
    if row.lr is None:
        return quantities.MISSING
    return f"reached by {row.reached} of {row.seeds}" if row.reached else "not reached"


def _scale(rows: Sequence[Row]) -> tuple[float, float]:
    ends = [
        end
        for row in rows
        if row.test is not None
        for end in (row.test.mean, row.test.low, row.test.high)
        if end is not None
    ]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _whisker(interval: Interval | None, scale: tuple[float, float]) -> Whisker | None:
    low, high = scale
    if interval is None or high <= low:
        return None

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return Whisker(
        place(interval.mean),
        place(interval.mean if interval.low is None else interval.low),
        place(interval.mean if interval.high is None else interval.high),
    )
