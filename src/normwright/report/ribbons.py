"""Percentile ribbons: how the input and output of each normaliser move while the network trains."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from normwright.lab.records import Comparison, Ribbon
from normwright.report.palette import MUTED, RULE, style_of, translucent
from normwright.report.quantities import compact
from normwright.report.sections import Panel, Section, View, absent, batch_sizes, nothing
from normwright.report.theme import frame

HEIGHT = 330
OUTLIER = 6.0  # a panel that needs this many times the usual range gets a scale of its own

Triples = Sequence[tuple[float, float, float]]
Range = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """The range of a panel's axis; `own` when it is not the one that the other panels share."""

    range: Range
    own: bool


def ribbons_section(comparison: Comparison) -> Section:
    """One view per batch size and layer: a panel per normaliser, the input above the output."""
    drawn = [ribbon for ribbon in comparison.ribbons if ribbon.steps]
    if not drawn:
        return nothing(comparison, "nothing was recorded of the layers (the comparison ran with 0 records)")
    layers = tuple(dict.fromkeys(ribbon.layer for ribbon in drawn))
    return Section(
        tuple(_view(comparison, drawn, size, layer) for size in batch_sizes(comparison) for layer in layers)
    )


def _view(comparison: Comparison, drawn: Sequence[Ribbon], batch_size: int, layer: str) -> View:
    ribbons = [ribbon for ribbon in drawn if ribbon.batch_size == batch_size and ribbon.layer == layer]
    notes = absent(comparison, batch_size, {ribbon.norm for ribbon in ribbons}, "ribbon")
    above, below = scales([ribbon.input for ribbon in ribbons]), scales([ribbon.output for ribbon in ribbons])
    if any(scale.own for scale in (*above, *below)):
        notes = (*notes, "A panel marked “own scale” spans far more than the others, which share one scale.")
    panels = tuple(map(_panel, ribbons, above, below))
    return View(batch_size, panels, notes, layer)


def _panel(ribbon: Ribbon, above: Scale, below: Scale) -> Panel:
    style = style_of(ribbon.norm)
    figure = frame(
        [*_ribbon(ribbon, ribbon.input, "y2"), *_ribbon(ribbon, ribbon.output, "y")],
        title=f'<span style="color:{style.colour}">■</span> {style.label}',
        height=HEIGHT,
        showlegend=False,
        margin={"t": 48},
        xaxis={"title": {"text": "training step"}, "anchor": "y", "nticks": 4},
        yaxis={"domain": [0, 0.43], "range": list(below.range), "nticks": 5},
        yaxis2={"domain": [0.57, 1], "range": list(above.range), "nticks": 5, "gridcolor": RULE}
        | {"zeroline": False, "automargin": True, "tickfont": {"size": 11, "color": MUTED}},
        annotations=[_heading("input", 1.0, own=above.own), _heading("output", 0.43, own=below.own)],
    )
    alt = (
        f"{style.label} at batch size {ribbon.batch_size}: 15th, 50th and 85th percentile of its input and "
        "output over training steps."
    )
    return Panel(figure, alt)


def _heading(text: str, y: float, *, own: bool) -> dict[str, Any]:
    return {
        "text": text + (" (own scale)" if own else ""),
        "font": {"size": 11, "color": MUTED},
        "showarrow": False,
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": y,
        "yref": "paper",
        "yanchor": "bottom",
    }


def _ribbon(ribbon: Ribbon, triples: Triples, axis: str) -> list[Any]:
    colour = style_of(ribbon.norm).colour
    points = [
        (step, *map(compact, triple))
        for step, triple in zip(ribbon.steps, triples, strict=True)
        if all(map(math.isfinite, triple))
    ]
    steps = [point[0] for point in points]
    band = go.Scatter(
        x=[*steps, *reversed(steps)],
        y=[*(point[3] for point in points), *(point[1] for point in reversed(points))],
        fill="toself",
        fillcolor=translucent(colour, 0.22),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        yaxis=axis,
    )
    median = go.Scatter(
        x=steps,
        y=[point[2] for point in points],
        customdata=[[point[1], point[3]] for point in points],
        mode="lines" if len(points) > 1 else "markers",
        line={"color": colour, "width": 2},
        hovertemplate="step %{x}<br>85 %: %{customdata[1]:.3g}<br>median: %{y:.3g}"
        "<br>15 %: %{customdata[0]:.3g}<extra></extra>",
        yaxis=axis,
    )
    return [band, median]


def _span(triples: Triples) -> Range:
    values = [value for triple in triples for value in triple if math.isfinite(value)] or [-1.0, 1.0]
    return min(values), max(values)


def _padded(low: float, high: float) -> Range:
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.06
    return compact(low - room), compact(high + room)


def scales(parts: Sequence[Triples]) -> list[Scale]:
    """One scale for all panels, but for those that would flatten the others, which get their own."""
    if not parts:
        return []
    spans = [_span(triples) for triples in parts]
    centre = statistics.median((low + high) / 2 for low, high in spans)
    reach = [max(abs(low - centre), abs(high - centre)) for low, high in spans]
    usual = statistics.median_low(reach)
    fitting = [span for span, far in zip(spans, reach, strict=True) if far <= OUTLIER * usual or usual == 0]
    shared = _padded(min(low for low, _ in fitting), max(high for _, high in fitting))
    return [
        Scale(shared, own=False) if span in fitting else Scale(_padded(*span), own=True) for span in spans
    ]
