"""What the learning-rate range test found, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from normwright.network.table import Table


@dataclass(frozen=True)
class RateCurve:
    """One sweep through the rates, up to its end or to where the loss got out of hand.

    Args:
        seed: of the weights, the order of the samples and dropout.
        rates: learning rates, each used for one step.
        losses: the loss of the next mini-batch, after that step.
        smoothed: their centred running mean.
        start: the mean loss before the first step.
        noise: the standard error of a smoothed loss: the deviation of the losses before the first step, over
            the root of the window.
        lower, steepest, upper: rates that were run; None where the loss never fell.
        open_below, open_above: whether the range may go on below the first rate, above the last.
        ended: why the sweep ended.
    """

    seed: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    start: float
    noise: float
    lower: float | None
    steepest: float | None
    upper: float | None
    open_below: bool
    open_above: bool
    ended: str


@dataclass(frozen=True)
class UsableRange:
    """The rates that one network trains at, whatever the seed.

    Args:
        normalised: whether the network had its normalisers.
        label: what the network is called.
        curves: one per seed.
        lower: the largest of the seeds' lower ends; None where some seed has no range, or none in common.
        upper: the smallest of their upper ends.
        steepest: the median of their steepest rates, the lower one of two.
        open_below, open_above: whether the range may go on below the first rate, above the last.
        decades: log₁₀(upper / lower); None without a range.
    """

    normalised: bool
    label: str
    curves: tuple[RateCurve, ...]
    lower: float | None
    steepest: float | None
    upper: float | None
    open_below: bool
    open_above: bool
    decades: float | None


@dataclass(frozen=True)
class LearningRates:
    """The usable learning rates at one batch size, with normalisers and without.

    Args:
        network, data, device: what was trained, on what, and where.
        batch_size: samples per step.
        ranges: with the normalisers first; the other is missing where the network has none.
        recommended: the rate to take, one of those that were run; None where none is usable.
        widening: decades that the normalisers add to the range, as far as the rates that were run go; None
            where one of the two is not known.
        upper_ratio: the upper end with normalisers over that without; likewise.
        why: one sentence.
        notes: what else to know.
    """

    network: str
    data: str
    device: str
    batch_size: int
    ranges: tuple[UsableRange, ...]
    recommended: float | None
    widening: float | None
    upper_ratio: float | None
    why: str
    notes: tuple[str, ...]

    def table(self) -> Table:
        """One row per network."""
        summary = (
            f"No rate that was run can be recommended: {self.why}"
            if self.recommended is None
            else f"Take learning rate {self.recommended:.3g} at batch size {self.batch_size:,}: {self.why}"
        )
        columns = ("", "loss falls from", "steepest", "up to", "decades", "seeds with a range")
        return Table(summary, columns, tuple(map(_row, self.ranges)), self.notes)

    def __str__(self) -> str:
        return str(self.table())


def _row(usable: UsableRange) -> tuple[str, ...]:
    with_range = sum(curve.lower is not None for curve in usable.curves)
    return (
        usable.label,
        "" if usable.lower is None else f"{'≤ ' if usable.open_below else ''}{usable.lower:.3g}",
        "" if usable.steepest is None else f"{usable.steepest:.3g}",
        "" if usable.upper is None else f"{'≥ ' if usable.open_above else ''}{usable.upper:.3g}",
        "none" if usable.decades is None else f"{at_least(usable)}{shown_decades(usable):.1f}",
        f"{with_range} of {len(usable.curves)}",
    )


def at_least(usable: UsableRange) -> str:
    """The sign before a width that the rates which were run cut off, or ""."""
    return "≥ " if usable.open_below or usable.open_above else ""


def shown_decades(usable: UsableRange) -> float:
    """The width of a range that there is, as precisely as it is shown."""
    assert usable.decades is not None
    return round(usable.decades, 1)


def decades_between(lower: float, upper: float) -> float:
    """How many times ten lies between two rates.

    Example:
        >>> decades_between(0.01, 1.0)
        2.0
    """
    return math.log10(upper / lower)
