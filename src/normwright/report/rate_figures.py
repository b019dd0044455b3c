"""The figure of a learning-rate range test: the loss over the rates, with normalisers and without."""

from __future__ import annotations

import math
import statistics
from typing import Any

import plotly.graph_objects as go

from normwright.lab.lr_range.records import LearningRates, UsableRange
from normwright.report.palette import INK, Style, style_of, translucent
from normwright.report.quantities import compact
from normwright.report.sections import Panel
from normwright.report.theme import frame, log_axis

_HEIGHT = 460

# Above the start no more than this share of the largest fall is shown: a loss that diverges fills any axis.
_ABOVE = 0.5


def rate_panels(found: LearningRates) -> tuple[Panel, ...]:
    """One figure: a band and a line for each network, its usable rates shaded."""
    traces = [trace for usable in found.ranges for trace in (_band(usable), _line(usable))]
    curves = [curve for usable in found.ranges for curve in usable.curves]
    start = max(curve.start for curve in curves if math.isfinite(curve.start))
    lowest = min((loss for curve in curves for loss in curve.smoothed), default=start)
    room = start - lowest or abs(start) or 1.0
    figure = frame(
        traces,
        title="Smoothed loss of the next mini-batch",
        height=_HEIGHT,
        hovermode="closest",
        xaxis={"title": {"text": "learning rate"}, **log_axis(rate for c in curves for rate in c.rates)},
        yaxis={"range": [compact(lowest - 0.06 * room), compact(start + _ABOVE * room)]},
        showlegend=len(found.ranges) > 1,
    )
    figure.update_layout(margin_b=40)
    for usable in found.ranges:
        if usable.lower is not None and usable.upper is not None:
            figure.add_vrect(
                x0=usable.lower,
                x1=usable.upper,
                fillcolor=translucent(_style(usable).colour, 0.1),
                line={"width": 0},
                layer="below",
            )
    if found.recommended is not None:
        figure.add_vline(
            x=found.recommended,
            line={"color": INK, "dash": "dot", "width": 1.5},
        )
        # On a logarithmic axis Plotly places a shape by its value, but a note by its logarithm.
        figure.add_annotation(
            x=math.log10(found.recommended),
            y=1,
            yref="paper",
            yanchor="top",
            xanchor="left",
            text=f"take {found.recommended:.3g}",
            font={"size": 11, "color": INK},
            showarrow=False,
        )
    return (Panel(figure, _alt(found)),)


def _line(usable: UsableRange) -> Any:
    rates, mean, _, _ = _over_seeds(usable)
    return go.Scatter(
        x=rates,
        y=mean,
        mode="lines",
        name=usable.label,
        legendgroup=usable.label,
        line={"color": _style(usable).colour, "width": 2.2},
        hovertemplate="learning rate %{x:.3~g}<br>loss %{y:.4~g}<extra></extra>",
    )


def _band(usable: UsableRange) -> Any:
    rates, _, low, high = _over_seeds(usable)
    return go.Scatter(
        x=[*rates, *reversed(rates)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=translucent(_style(usable).colour, 0.2),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=usable.label,
        name=usable.label,
    )


def _over_seeds(usable: UsableRange) -> tuple[list[float], list[float], list[float], list[float]]:
    """Rates, and the mean, lowest and highest loss, as far as every seed came."""
    shortest = min(usable.curves, key=lambda curve: len(curve.rates))
    losses = list(zip(*(curve.smoothed[: len(shortest.rates)] for curve in usable.curves), strict=True))
    return (
        list(map(compact, shortest.rates)),
        [compact(statistics.fmean(each)) for each in losses],
        [compact(min(each)) for each in losses],
        [compact(max(each)) for each in losses],
    )


def _style(usable: UsableRange) -> Style:
    return style_of("batch" if usable.normalised else "none")


def _alt(found: LearningRates) -> str:
    told = [
        f"{usable.label}, {'none' if usable.lower is None else f'{usable.lower:.3g} to {usable.upper:.3g}'}"
        for usable in found.ranges
    ]
    return f"Loss against learning rate. Usable rates: {'; '.join(told)}."
