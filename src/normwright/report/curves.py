"""Learning curves: training loss and validation metric over steps, with the band over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from normwright.lab.records import Band, Comparison, Learning
from normwright.report.escape import plotly_text
from normwright.report.palette import MUTED, translucent
from normwright.report.quantities import compact
from normwright.report.sections import Panel, Section, View, absent, batch_sizes, legend_entry, nothing
from normwright.report.theme import frame, log_axis

MOST_POINTS = 300  # a curve is at most about 1,000 pixels wide; more points only slow the page
LOG_SPREAD = 20.0  # a loss that spans less than this reads better on a plain axis
HEIGHT = 400


def learning_section(comparison: Comparison) -> Section:
    """One view per batch size: the loss and the metric, side by side."""
    if not comparison.learning:
        return nothing(comparison, "no run has a learning curve")
    return Section(tuple(_view(comparison, size) for size in batch_sizes(comparison)))


def _view(comparison: Comparison, batch_size: int) -> View:
    curves = [curve for curve in comparison.learning if curve.batch_size == batch_size]
    notes = absent(comparison, batch_size, {curve.norm for curve in curves}, "curve")
    if not curves:
        return View(batch_size, (), notes)
    if all(row.seeds == 1 for row in comparison.rows):
        notes = (*notes, "There is one seed, so the lines have no band.")
    panels = (_loss_panel(curves, batch_size), _metric_panel(curves, comparison, batch_size))
    return View(batch_size, panels, notes)


def _loss_panel(curves: Sequence[Learning], batch_size: int) -> Panel:
    bands = [thinned(curve.loss) for curve in curves]
    log = _wants_log(bands)
    figure = frame(
        _traces(curves, bands),
        title="Training loss" + (" (log scale)" if log else ""),
        height=HEIGHT,
        hovermode="x unified",
        xaxis={"title": {"text": "training step"}, "rangemode": "tozero"},
        yaxis=log_axis(value for band in bands for value in (*band.low, *band.high)) if log else {},
    )
    return Panel(figure, f"Training loss over steps at batch size {batch_size}, one line per normaliser.")


def _metric_panel(curves: Sequence[Learning], comparison: Comparison, batch_size: int) -> Panel:
    name = plotly_text(comparison.metric)
    figure = frame(
        _traces(curves, [thinned(curve.metric) for curve in curves]),
        title=f"Validation {name}",
        height=HEIGHT,
        hovermode="x unified",
        xaxis={"title": {"text": "training step"}, "rangemode": "tozero"},
    )
    figure.add_hline(
        y=comparison.target,
        line={"color": MUTED, "dash": "dash", "width": 1.5},
        annotation={
            "text": f"target {comparison.target:g}",
            "font": {"size": 11, "color": MUTED},
            # On the left, where the curves are still below it.
            "xanchor": "left",
            "x": 0,
            "yanchor": "bottom",
        },
    )
    alt = f"Validation {comparison.metric} over steps at batch size {batch_size}, one line per normaliser."
    return Panel(figure, alt)


def _traces(curves: Sequence[Learning], bands: Sequence[Band]) -> list[Any]:
    """All bands first, so that no band lies over a line."""
    drawn = [(curve.norm, band) for curve, band in zip(curves, bands, strict=True) if band.steps]
    return [_fill(norm, band) for norm, band in drawn if band.low != band.high] + [
        _line(norm, band) for norm, band in drawn
    ]


def _fill(norm: str, band: Band) -> Any:
    style, entry = legend_entry(norm)
    return go.Scatter(
        x=[*band.steps, *reversed(band.steps)],
        y=[*map(compact, band.high), *map(compact, reversed(band.low))],
        fill="toself",
        fillcolor=translucent(style.colour, 0.16),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        **entry,
    )


def _line(norm: str, band: Band) -> Any:
    style, entry = legend_entry(norm)
    return go.Scatter(
        x=list(band.steps),
        y=list(map(compact, band.mean)),
        mode="lines" if len(band.steps) > 1 else "markers",
        line={"color": style.colour, "width": 2.2},
        hovertemplate="%{y:.4g}",
        **entry,
    )


def thinned(band: Band, most: int = MOST_POINTS) -> Band:
    """The band in at most `most` points: each the mean of a run of neighbours, at the run's middle step.

    Points whose numbers are not finite are left out.

    Example:
        >>> thinned(Band((0, 1, 2, 3), (4.0, 2.0, 3.0, 1.0), (3.0, 1.0, 2.0, 1.0), (5.0, 3.0, 4.0, 2.0)), 2)
        Band(steps=(0, 2), mean=(3.0, 2.0), low=(2.0, 1.5), high=(4.0, 3.0))
    """
    points = [
        point
        for point in zip(band.steps, band.mean, band.low, band.high, strict=True)
        if all(map(math.isfinite, point))
    ]
    run = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + run] for start in range(0, len(points), run)]
    return Band(
        tuple(group[(len(group) - 1) // 2][0] for group in groups),
        *(tuple(statistics.fmean(point[part] for point in group) for group in groups) for part in (1, 2, 3)),
    )


def _wants_log(bands: Sequence[Band]) -> bool:
    lows = [value for band in bands for value in band.low]
    highs = [value for band in bands for value in band.high]
    return bool(lows) and min(lows) > 0 and max(highs) / min(lows) >= LOG_SPREAD
