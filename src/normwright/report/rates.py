"""Learning rate × batch size: the validation metric of every pair, as tables coloured on one scale.

They are HTML tables rather than drawings: each cell holds its number, so that a screen reader, a
printer without colours and a phone all show the whole map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from normwright.lab.records import Comparison, RateMap
from normwright.report import quantities
from normwright.report.palette import Style, along, ink_on, style_of

# Light to dark in one hue: the order survives every kind of colour blindness and a grey printer.
SCALE = ("#f4f7fa", "#c3d6e4", "#82abc8", "#3f79a3", "#174a70")


@dataclass(frozen=True)
class Cell:
    """One learning rate: `text` is the metric, or None where no seed survived."""

    text: str | None
    background: str
    ink: str
    diverged: int
    best: bool


@dataclass(frozen=True)
class Line:
    """A heading with its cells; `style` where the heading is a normaliser."""

    heading: str
    style: Style | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Grid:
    """One small map; `style` where the whole of it belongs to one normaliser."""

    style: Style | None
    lines_are: str
    lrs: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Rates:
    """All maps, and the ends of their common scale (None when nothing survived)."""

    grids: tuple[Grid, ...]
    low: str | None
    high: str | None
    scale: tuple[str, ...] = SCALE


def rates(comparison: Comparison) -> Rates:
    """One map per normaliser; one map in all, normalisers as its lines, when there is one batch size."""
    maps = comparison.rate_maps
    values = [value for each in maps for row in each.metric for value in row if _finite(value) is not None]
    numbers = [value for value in values if value is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    lrs = tuple(sorted({lr for each in maps for lr in each.lrs}))
    sizes = {size for each in maps for size in each.batch_sizes}
    grids = _one_grid(maps, lrs, low, high) if len(sizes) == 1 else _grids(maps, lrs, low, high)
    if not numbers:
        return Rates(grids, None, None)
    return Rates(grids, quantities.metric(low), quantities.metric(high))


def _one_grid(maps: Sequence[RateMap], lrs: tuple[float, ...], low: float, high: float) -> tuple[Grid, ...]:
    lines = tuple(
        Line(style_of(each.norm).label, style_of(each.norm), _cells(each, 0, lrs, low, high)) for each in maps
    )
    return (Grid(None, "normaliser", tuple(map(quantities.rate, lrs)), lines),)


def _grids(maps: Sequence[RateMap], lrs: tuple[float, ...], low: float, high: float) -> tuple[Grid, ...]:
    return tuple(
        Grid(
            style_of(each.norm),
            "batch",
            tuple(map(quantities.rate, lrs)),
            tuple(
                Line(str(size), None, _cells(each, i, lrs, low, high))
                for i, size in enumerate(each.batch_sizes)
            ),
        )
        for each in maps
    )


def _cells(
    each: RateMap, line: int, lrs: tuple[float, ...], low: float, high: float
) -> tuple[Cell | None, ...]:
    """The cells of one line; None where this normaliser was not run at that learning rate."""
    metrics = dict(zip(each.lrs, map(_finite, each.metric[line]), strict=True))
    diverged = dict(zip(each.lrs, each.diverged[line], strict=True))
    # As `lab.judge.choose` has it: a mean over fewer seeds is none that the others are held against.
    alive = [(-diverged[lr], value, lr) for lr, value in metrics.items() if value is not None]
    chosen = max(alive, key=lambda rated: rated[:2], default=(0, 0.0, None))[2]
    return tuple(
        _cell(metrics[lr], diverged[lr], low, high, best=lr == chosen) if lr in metrics else None
        for lr in lrs
    )


def _cell(value: float | None, diverged: int, low: float, high: float, *, best: bool) -> Cell:
    if value is None:
        return Cell(None, "", "", diverged, best=False)
    background = along(SCALE, (value - low) / (high - low) if high > low else 0.5)
    return Cell(quantities.metric(value), background, ink_on(background), diverged, best)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
