"""The effects of all predictions on one scale: 0 is no effect, 1 the effect that the prediction names.

    s = (effect − null) / (limit − null)        for a difference, whose null is 0
    s = log(effect) / log(limit)                for a ratio, whose null is 1

An effect may be fifty times the smallest that matters, so the axis is asinh(s): linear about 0, logarithmic
far from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from normwright.lab.book import words
from normwright.lab.book.bounds import AT_LEAST, AT_MOST
from normwright.lab.book.record import ClaimRecord, Outcome
from normwright.report.claims_standing import Standing, standing_of

FARTHEST = 1000.0  # beyond, an arrow stands for the rest
_TICKS = (-1000, -100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100, 1000)


@dataclass(frozen=True)
class Dot:
    """An effect and its interval, in percent of the axis.

    An open end is an arrow: the interval goes on beyond the axis, or it is one of bounds beyond which the
    effect lies.
    """

    mean: float
    low: float | None
    high: float | None
    low_open: bool
    high_open: bool


@dataclass(frozen=True)
class Row:
    """One prediction in the figure; without a dot, `why` says what is missing.

    Args:
        turned: whether it is drawn with its sign turned round: where the limit is below no effect, what lies
            right of another is the lesser.
    """

    number: int
    says: str
    standing: Standing
    effect: str
    dot: Dot | None
    why: str = ""
    turned: bool = False


@dataclass(frozen=True)
class Chart:
    """The rows of one panel over one axis.

    Args:
        key: `effect` or `none`: whether a large effect supports, or a small one.
        ticks: (percent of the axis, text).
        zero, one: where these lie, in percent of the axis.
    """

    key: str
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float
    one: float

    @property
    def turned(self) -> bool:
        """Whether a row is drawn with its sign turned round."""
        return any(row.turned for row in self.rows)


def charts(records: Sequence[ClaimRecord]) -> tuple[Chart, ...]:
    """A panel of the predictions that a large effect supports, and one of those that a small one does."""
    pairs = [(record, outcome) for record in records for outcome in record.outcomes]
    panels = [
        ("effect", [pair for pair in pairs if predicts_effect(pair[1])]),
        ("none", [pair for pair in pairs if not predicts_effect(pair[1])]),
    ]
    return tuple(_chart(key, shown) for key, shown in panels if shown)


def predicts_effect(outcome: Outcome) -> bool:
    """Whether the prediction names the smallest effect that matters, and not the largest that does not.

    "At most −2" predicts an effect, as "at least 2" does.
    """
    return (outcome.at_least is not None) == (outcome.limit >= _null(outcome))


def scaled(outcome: Outcome, value: float) -> float:
    """The value on the common scale; the limit must differ from the null."""
    if not outcome.ratio:
        return value / outcome.limit
    if value <= 0:
        return -math.inf if outcome.limit > 1 else math.inf
    return math.log(value) / math.log(outcome.limit)


def _null(outcome: Outcome) -> float:
    return 1.0 if outcome.ratio else 0.0


def _has_scale(outcome: Outcome) -> bool:
    return outcome.limit != _null(outcome) and (not outcome.ratio or outcome.limit > 0)


def _ends(outcome: Outcome) -> tuple[float, float | None, float | None] | None:
    """Mean, low and high on the common scale, in that order also where the scale turns them round."""
    found = outcome.effect
    if found is None or not _has_scale(outcome):
        return None
    mean = scaled(outcome, found.mean)
    if found.low is None or found.high is None:
        return mean, None, None
    low, high = sorted((scaled(outcome, found.low), scaled(outcome, found.high)))
    return mean, low, high


def _chart(key: str, pairs: Sequence[tuple[ClaimRecord, Outcome]]) -> Chart:
    ends = [_ends(outcome) for _, outcome in pairs]
    low, high = _range(value for end in ends if end for value in end if value is not None)

    def place(value: float) -> float:
        return round(2 + 96 * (math.asinh(value) - low) / (high - low), 2)

    def dot(end: tuple[float, float | None, float | None], outcome: Outcome) -> Dot:
        mean, least, most = end
        below, above = _bounded(outcome)
        return Dot(
            place(_near(mean)),
            None if least is None else place(_near(least)),
            None if most is None else place(_near(most)),
            least is not None and (below or least < -FARTHEST),
            most is not None and (above or most > FARTHEST),
        )

    rows = tuple(
        Row(
            record.number,
            outcome.says,
            standing_of(outcome),
            words.effect(outcome),
            dot(end, outcome) if end else None,
            _why_not(outcome),
            end is not None and _is_turned(outcome),
        )
        for (record, outcome), end in zip(pairs, ends, strict=True)
    )
    return Chart(key, rows, _ticks(low, high, place), place(0), place(1))


def _bounded(outcome: Outcome) -> tuple[bool, bool]:
    """Whether the effect may lie below, and above, its measures, on the common scale."""
    below, above = (kind in outcome.bounds for kind in (AT_MOST, AT_LEAST))
    return (above, below) if _is_turned(outcome) else (below, above)


def _is_turned(outcome: Outcome) -> bool:
    """Whether a larger effect lies further left: the limit is a decrease, or a ratio below 1."""
    return scaled(outcome, _null(outcome) + 1) < 0


def _why_not(outcome: Outcome) -> str:
    if outcome.effect is None:
        return words.UNMEASURED
    return "" if _has_scale(outcome) else "held against no effect at all, which has no place on this scale"


def _near(value: float) -> float:
    return min(max(value, -FARTHEST), FARTHEST)


def _range(values: Iterable[float]) -> tuple[float, float]:
    """The ends of the axis, as asinh; both 0 and 1 are on it, with room for their names."""
    places = [math.asinh(_near(value)) for value in values]
    return min(-0.6, *places) if places else -0.6, max(1.6, *places) if places else 1.6


def _ticks(low: float, high: float, place: Callable[[float], float]) -> tuple[tuple[float, str], ...]:
    seen = [tick for tick in _TICKS if low <= math.asinh(tick) <= high]
    if len(seen) > 7:
        seen = [tick for tick in seen if abs(tick) not in (3, 30)]
    return tuple((place(tick), words.number(tick)) for tick in seen)
