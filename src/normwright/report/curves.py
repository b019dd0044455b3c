"""Learning curves: training loss and validation metric over steps, with the band over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import plotly.graph_objects as go

from normwright.lab.records import Band, Comparison
from normwright.report.escape import plotly_text
from normwright.report.palette import MUTED, translucent
from normwright.report.quantities import compact
from normwright.report.sections import (
    Panel,
    Section,
    View,
    absent,
    batch_sizes,
    labels,
    legend_entry,
    nothing,
)
from normwright.report.theme import frame, log_axis

MOST_POINTS = 300  # a curve is at most about 1,000 pixels wide; more points only slow the page
LOG_SPREAD = 20.0  # a loss that spans less than this reads better on a plain axis
HEIGHT = 400
LABEL_SHIFT = 10

Bands = Mapping[str, Band]
"""By normaliser."""


def learning_section(comparison: Comparison) -> Section:
    """One view per batch size: the loss and the metric, side by side."""
    views = tuple(_view(comparison, size) for size in batch_sizes(comparison))
    if not any(view.panels for view in views):
        return nothing(comparison, "no run has a learning curve")
    return Section(views)


def _view(comparison: Comparison, batch_size: int) -> View:
    curves = [curve for curve in comparison.learning if curve.batch_size == batch_size]
    losses = _drawn({curve.norm: curve.loss for curve in curves})
    metrics = _drawn({curve.norm: curve.metric for curve in curves})
    notes = absent(comparison, batch_size, set(losses), "curve")
    notes += _never_evaluated(tuple(norm for norm in losses if norm not in metrics), comparison.metric)
    if losses and all(row.seeds == 1 for row in comparison.rows):
        notes = (*notes, "There is one seed, so the lines have no band.")
    panels = []
    if losses:
        panels.append(_loss_panel(losses, batch_size))
    if metrics:
        panels.append(_metric_panel(metrics, comparison, batch_size))
    return View(batch_size, tuple(panels), notes)


def _drawn(bands: Bands) -> Bands:
    """Thinned; without those that have no point, as of a run that diverged before any."""
    return {norm: band for norm, whole in bands.items() if (band := thinned(whole)).steps}


def _never_evaluated(norms: tuple[str, ...], metric: str) -> tuple[str, ...]:
    if not norms:
        return ()
    return (f"No validation {metric} of {labels(norms)}: the runs diverged before the first evaluation.",)


def _loss_panel(bands: Bands, batch_size: int) -> Panel:
    log = _wants_log(bands.values())
    figure = frame(
        _traces(bands),
        title="Training loss" + (" (log scale)" if log else ""),
        height=HEIGHT,
        hovermode="x unified",
        xaxis={"title": {"text": "training step"}, "rangemode": "tozero"},
        yaxis=log_axis(end for band in bands.values() for end in (*band.low, *band.high)) if log else {},
    )
    return Panel(figure, f"Training loss over steps at batch size {batch_size}, one line per normaliser.")


def _metric_panel(bands: Bands, comparison: Comparison, batch_size: int) -> Panel:
    figure = frame(
        _traces(bands),
        # Of path/to/file.py:function the last part: a title does not wrap. The table has the whole name.
        title=f"Validation {plotly_text(comparison.metric.rpartition(':')[2])}",
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
            # On the left, where the curves are still below it, and apart from the axis: beside the number
            # of a tick it would read as one with it.
            "xanchor": "left",
            "x": 0,
            "xshift": LABEL_SHIFT,
            "yanchor": "bottom",
        },
    )
    alt = f"Validation {comparison.metric} over steps at batch size {batch_size}, one line per normaliser."
    return Panel(figure, alt)


def _traces(bands: Bands) -> list[Any]:
    """All bands first, so that no band lies over a line."""
    return [_fill(norm, band) for norm, band in bands.items() if band.low != band.high] + [
        _line(norm, band) for norm, band in bands.items()
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


def _wants_log(bands: Iterable[Band]) -> bool:
    bands = list(bands)
    lows = [value for band in bands for value in band.low]
    highs = [value for band in bands for value in band.high]
    return bool(lows) and min(lows) > 0 and max(highs) / min(lows) >= LOG_SPREAD
