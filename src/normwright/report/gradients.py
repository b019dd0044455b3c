"""Gradient norm and update-to-weight ratio by layer, at the start, middle and end of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from normwright.lab.records import Comparison, GradientProfile
from normwright.report.escape import plotly_text
from normwright.report.layer_axis import layer_ticks
from normwright.report.quantities import compact
from normwright.report.sections import Panel, Section, View, absent, batch_sizes, legend_entry, nothing
from normwright.report.theme import frame, log_axis

HEIGHT = 370

Values = Callable[[GradientProfile], tuple[tuple[float, ...], ...]]
QUANTITIES: tuple[tuple[str, Values], ...] = (
    ("Gradient norm", lambda profile: profile.gradient),
    ("Update / weight", lambda profile: profile.update),
)


def gradients_section(comparison: Comparison) -> Section:
    """One view per batch size: two quantities at up to three moments of training."""
    if not any(profile.steps for profile in comparison.gradients):
        return nothing(comparison, "nothing was recorded of the layers (the comparison ran with 0 records)")
    return Section(tuple(_view(comparison, size) for size in batch_sizes(comparison)))


def _view(comparison: Comparison, batch_size: int) -> View:
    profiles = [p for p in comparison.gradients if p.batch_size == batch_size and p.steps and p.layers]
    notes = absent(comparison, batch_size, {profile.norm for profile in profiles}, "gradient")
    if not profiles:
        return View(batch_size, (), notes)
    panels = [
        _panel(f"{name}, {moment}", profiles, values, share)
        for name, values in QUANTITIES
        for moment, share in _moments(max(len(profile.steps) for profile in profiles))
    ]
    return View(batch_size, tuple(panels), notes)


def _moments(records: int) -> tuple[tuple[str, float], ...]:
    """The moments of training to draw, as shares of the records."""
    return (("start", 0.0), ("middle", 0.5), ("end", 1.0))[:: 2 if records == 2 else 1][:records]


def _panel(title: str, profiles: Sequence[GradientProfile], values: Values, share: float) -> Panel:
    layers = max((profile.layers for profile in profiles), key=len)
    figure = frame(
        [_line(profile, values(profile), share) for profile in profiles],
        title=title,
        height=HEIGHT,
        margin={"l": 44},  # the first tilted layer name reaches past the axis
        xaxis={**layer_ticks(layers), "title": {"text": "layer, from input to loss"}},
        # One range for all moments, so that the panels of a row can be compared by eye.
        yaxis=log_axis(value for profile in profiles for row in values(profile) for value in row),
    )
    return Panel(figure, f"{title} of training, by layer, one line per normaliser.")


def _line(profile: GradientProfile, values: tuple[tuple[float, ...], ...], share: float) -> Any:
    style, entry = legend_entry(profile.norm)
    moment = round(share * (len(profile.steps) - 1))
    # A logarithmic axis has no zero: such a point is left out, and the page says so.
    shown = [compact(value) if math.isfinite(value) and value > 0 else None for value in values[moment]]
    return go.Scatter(
        x=list(range(len(profile.layers))),
        y=shown,
        customdata=[plotly_text(layer) for layer in profile.layers],
        mode="lines+markers",
        line={"color": style.colour, "width": 2},
        marker={"symbol": style.marker, "size": 7, "color": style.colour},
        hovertemplate=f"%{{customdata}}<br>{style.label}, step {profile.steps[moment]}: %{{y:.3g}}"
        "<extra></extra>",
        **entry,
    )
