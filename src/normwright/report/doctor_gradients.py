"""Gradients, updates and covariate shift by depth, from the input of a network to its loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from normwright.doctor.training.covariate_shift import CovariateShift
from normwright.doctor.training.gradients import LayerGradients
from normwright.report.escape import plotly_text
from normwright.report.layer_axis import layer_ticks
from normwright.report.quantities import compact
from normwright.report.sections import Panel, Section, View
from normwright.report.theme import frame, log_axis

HEIGHT = 380
FIRST, LAST = ("first step", "#56b4e9", "circle-open"), ("last step", "#0072b2", "circle")
SHIFT, DRIFT = ("gradient", "#009e73", "diamond"), ("input", "#e69f00", "square")

Series = tuple[str, str, str]  # name, colour, marker


def gradients_section(gradients: Sequence[LayerGradients], shift: Sequence[CovariateShift]) -> Section:
    """One view: the gradient by depth, the updates, and the internal covariate shift if measured."""
    drawn = [layer for layer in gradients if layer.rms]
    panels = []
    if drawn:
        panels.append(_by_depth(drawn, "Gradient, root mean square of its elements", lambda layer: layer.rms))
    if any(layer.ratios for layer in drawn):
        panels.append(_by_depth(drawn, "Update / weight", lambda layer: layer.ratios))
    if shift:
        panels.append(_shift(shift))
    if not panels:
        return Section((), empty="There is nothing to draw here: no gradient was taken.")
    return Section((View(None, tuple(panels)),))


def _by_depth(
    layers: Sequence[LayerGradients], title: str, values: Callable[[LayerGradients], tuple[float, ...]]
) -> Panel:
    names = [layer.layer for layer in layers]
    rows = [values(layer) for layer in layers]
    ends = [(FIRST, [row[0] if row else math.nan for row in rows])]
    if any(len(row) > 1 for row in rows):
        ends.append((LAST, [row[-1] if row else math.nan for row in rows]))
    figure = frame(
        [_line(names, shown, series) for series, shown in ends],
        title=title,
        height=HEIGHT,
        margin={"l": 44},
        xaxis={**layer_ticks(names), "title": {"text": "layer, from input to loss"}},
        yaxis=log_axis(value for _, shown in ends for value in shown),
    )
    return Panel(figure, f"{title}, by layer, at the first and the last training step.")


def _shift(shift: Sequence[CovariateShift]) -> Panel:
    names = [facts.layer for facts in shift]
    moved = [_mean(facts.relative) for facts in shift]
    drifted = [_mean(facts.drift) for facts in shift]
    figure = frame(
        [_line(names, moved, SHIFT), _line(names, drifted, DRIFT)],
        title="What an update of the layers below moves",
        height=HEIGHT,
        margin={"l": 44},
        xaxis={**layer_ticks(names), "title": {"text": "layer, from input to loss"}},
        yaxis=log_axis([*moved, *drifted]),
    )
    alt = "Change of each layer's gradient, relative to it, and drift of its input in deviations, by layer."
    return Panel(figure, alt)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.fmean(finite) if finite else math.nan


def _line(names: Sequence[str], values: Sequence[float], series: Series) -> Any:
    name, colour, marker = series
    return go.Scatter(
        x=list(range(len(names))),
        # A logarithmic axis has no zero: such a point is left out, and the page says so.
        y=[compact(value) if math.isfinite(value) and value > 0 else None for value in values],
        customdata=list(map(plotly_text, names)),
        name=name,
        legendgroup=name,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"symbol": marker, "size": 7, "color": colour},
        hovertemplate=f"%{{customdata}}<br>{name}: %{{y:.3g}}<extra></extra>",
    )
