"""Numbers as the page prints them."""

from __future__ import annotations

from normwright.lab.records import Comparison, Interval
from normwright.network.counting import how_many

MISSING = "–"

# What `machine.clock_of` tells, for a reader of the table.
TIMES = (
    "Times are medians of a step: of the processor's time for a run of one thread on the CPU; else, as on a "
    "GPU, of the time that passed, which other work on the machine lengthens."
)


def length(comparison: Comparison) -> str:
    """How long each run of a comparison trains."""
    epochs = how_many(comparison.epochs, "epoch")
    return f"{epochs}, {how_many(comparison.max_steps, 'step')} at most" if comparison.max_steps else epochs


def metric(value: float | None) -> str:
    """A metric, three digits after the point where it is of ordinary size.

    Example:
        >>> metric(0.91249), metric(1234.5), metric(None)
        ('0.912', '1.23e+03', '–')
    """
    if value is None:
        return MISSING
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def count(value: float | None) -> str:
    """A whole number with separators.

    Example:
        >>> count(12345.4)
        '12,345'
    """
    return MISSING if value is None else f"{value:,.0f}"


def times(value: float | None) -> str:
    """A ratio.

    Example:
        >>> times(3.14159), times(14.21), times(250.0)
        ('3.14×', '14.2×', '250×')
    """
    if value is None:
        return MISSING
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}×"


def share(value: float) -> str:
    """A share in percent.

    Example:
        >>> share(0.25)
        '25 %'
    """
    return f"{100 * value:.0f} %"


def rate(value: float | None) -> str:
    """A learning rate.

    Example:
        >>> rate(0.1), rate(3.0)
        ('0.1', '3')
    """
    return MISSING if value is None else f"{value:g}"


def milliseconds(value: float | None) -> str:
    """A time, three significant digits.

    Example:
        >>> milliseconds(1.2345), milliseconds(123.4)
        ('1.23', '123')
    """
    return MISSING if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def mebibytes(value: int | None) -> str:
    """Bytes in MiB, one digit after the point where it is not too small for that.

    Example:
        >>> mebibytes(3 * 2**20), mebibytes(12345)
        ('3.0', '0.012')
    """
    if value is None:
        return MISSING
    return f"{value / 2**20:,.1f}" if value >= 2**20 / 10 or not value else f"{value / 2**20:.2g}"


def bounds(interval: Interval | None, form: str = "metric") -> str:
    """The ends of an interval, or nothing where there are none (a single seed).

    Example:
        >>> bounds(Interval(0.5, 0.4, 0.6, 3)), bounds(Interval(0.5, None, None, 1))
        ('0.400 – 0.600', '')
    """
    if interval is None or interval.low is None or interval.high is None:
        return ""
    form_of = {"metric": metric, "count": count, "times": times}[form]
    return f"{form_of(interval.low)} – {form_of(interval.high)}"


def compact(value: float) -> float:
    """Five significant digits: finer than a pixel, and a third of the page's size.

    Example:
        >>> compact(0.123456789)
        0.12346
    """
    return float(f"{value:.5g}")
