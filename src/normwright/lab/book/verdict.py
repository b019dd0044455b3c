"""The verdict on a claim, by a written rule and never by eye.

A prediction says that a measure is at least (or at most) a limit: the smallest effect that matters. Over the
seeds, the measure has a mean and a 95 % interval (Student's t; of the logarithms, where it is a ratio).

    supported        the whole interval lies on the predicted side of the limit
    refuted          the whole interval lies on the other side
    not supported    the limit lies within the interval: these seeds cannot tell

A claim is supported where all its predictions are, refuted where one is, and else not supported. With fewer
than five seeds there is no verdict. A seed whose measure could not be taken leaves its prediction not
supported.

A measure may be a bound, of which the truth lies on one side. It counts with its value. Where some are lower
bounds the mean of the truth is not below that of the measures: their interval can support "at least" and
refute "at most", and never the reverse. With upper bounds it is the other way round. Where a verdict would
need what a bound does not say, the prediction is not supported; so it is with bounds of both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

from normwright.lab.book.bounds import AT_LEAST, AT_MOST
from normwright.lab.book.claim import Prediction, is_finite
from normwright.lab.intervals import mean_interval, ratio_interval
from normwright.lab.records import Interval

LEAST_SEEDS = 5

SUPPORTED, NOT_SUPPORTED, REFUTED, NONE = "supported", "not supported", "refuted", "no verdict"


def interval_of(prediction: Prediction, values: Sequence[float]) -> Interval | None:
    """Mean and 95 % interval of the measures that could be taken; None where none could."""
    taken = [value for value in values if _is_taken(prediction, value)]
    if prediction.ratio:
        return ratio_interval(taken, [1.0] * len(taken))
    return mean_interval(taken)


def _is_taken(prediction: Prediction, value: float) -> bool:
    """A ratio of zero or below is none: it has no logarithm."""
    return is_finite(value) and (value > 0 or not prediction.ratio)


def judge(prediction: Prediction, values: Sequence[float], bounds: Sequence[str] = ()) -> str:
    """The verdict on one prediction.

    Args:
        prediction: the inequality.
        values: its measure, one per seed; NaN where it could not be taken.
        bounds: the kinds of bounds among them, in any order.

    Example:
        >>> faster = Prediction("ratio", "1.5 times as many", "times", at_least=1.5, ratio=True)
        >>> judge(faster, [2.0, 2.1, 1.9, 2.2, 2.0])
        'supported'
        >>> judge(faster, [1.0, 1.1, 0.9, 1.2, 1.0])
        'refuted'
        >>> judge(faster, [1.0, 1.1, 0.9, 1.2, 1.0], bounds=["at least"])
        'not supported'
        >>> judge(faster, [2.0, 2.1, 1.9, 2.2])
        'no verdict'
    """
    if len(values) < LEAST_SEEDS:
        return NONE
    return leaning(prediction, values, bounds)


def leaning(prediction: Prediction, values: Sequence[float], bounds: Sequence[str] = ()) -> str:
    """What the rule would say if there were seeds enough: what a quick run leans to."""
    interval = interval_of(prediction, values)
    if interval is None or interval.low is None or interval.high is None:
        return NOT_SUPPORTED
    if not all(_is_taken(prediction, value) for value in values):
        return NOT_SUPPORTED
    limit = prediction.limit
    if prediction.at_least is not None:
        held, broken = interval.low >= limit, interval.high < limit
        towards, against = AT_LEAST, AT_MOST
    else:
        held, broken = interval.high <= limit, interval.low > limit
        towards, against = AT_MOST, AT_LEAST
    if held and against not in bounds:
        return SUPPORTED
    return REFUTED if broken and towards not in bounds else NOT_SUPPORTED


def together(verdicts: Sequence[str]) -> str:
    """The verdict on a claim of several predictions.

    Example:
        >>> together(["supported", "refuted"])
        'refuted'
    """
    for verdict in (NONE, REFUTED, NOT_SUPPORTED):
        if verdict in verdicts:
            return verdict
    return SUPPORTED
