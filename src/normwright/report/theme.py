"""The one Plotly template of the page, and the frame that every figure starts from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

from normwright.report.palette import INK, MUTED, PAPER, RULE

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
}

_AXIS = {
    "automargin": True,
    "gridcolor": RULE,
    "linecolor": "#aab1ba",
    "tickcolor": "#aab1ba",
    "tickfont": {"size": 11, "color": MUTED},
    "title": {"font": {"size": 12, "color": MUTED}, "standoff": 8},
    "zeroline": False,
}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "margin": {"l": 8, "r": 10, "t": 34, "b": 8},
        "title": {"x": 0, "xref": "container", "y": 0.985, "yanchor": "top", "font": {"size": 14}},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": "#aab1ba", "font": {"size": 12, "color": INK}},
        "dragmode": False,  # a finger that scrolls past must not zoom; the mode bar still offers it
        "modebar": {"bgcolor": PAPER, "color": "#9aa2ac", "activecolor": INK},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 0,
            "yanchor": "bottom",
            "yref": "container",
            "font": {"size": 12},
        },
        "xaxis": {**_AXIS, "showgrid": False, "showline": True, "ticks": "outside", "ticklen": 4},
        "yaxis": {**_AXIS, "showgrid": True, "showline": False},
    }
)


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis over the positive finite values, whose ticks a newcomer can read.

    Plotly's own ticks write 0.2 as a bare 2, and 0.001 in a larger type than its neighbours.

    Example:
        >>> log_axis([0.03, 0.5])["ticktext"]
        ['0.05', '0.1', '0.2', '0.5']
        >>> log_axis([1e-9, 1e-3])["ticktext"]
        ['10⁻⁸', '10⁻⁶', '10⁻⁴']
    """
    logs = [math.log10(value) for value in values if math.isfinite(value) and value > 0] or [-1.0, 0.0]
    room = 0.05 * (max(logs) - min(logs)) or 0.5
    low, high = min(logs) - room, max(logs) + room
    decades = range(math.floor(low), math.ceil(high) + 1)
    stride = math.ceil((high - low) / 5)
    steps = (1, 2, 5) if high - low < 1.5 else (1, 3) if high - low < 3 else (1,)
    exact = [(step, decade) for decade in decades if decade % stride == 0 for step in steps]
    shown = [(step, decade) for step, decade in exact if low <= math.log10(step) + decade <= high]
    return {
        "type": "log",
        "range": [round(low, 3), round(high, 3)],
        "tickvals": [float(f"{step}e{decade}") for step, decade in shown],
        "ticktext": [_power(step, decade) for step, decade in shown],
    }


def _power(step: int, decade: int) -> str:
    if -3 < decade < 4:  # short enough to be plain
        return f"{float(f'{step}e{decade}'):g}"
    power = "10" + str(decade).translate(SUPERSCRIPTS)
    return power if step == 1 else f"{step}·{power}"


def frame(traces: Iterable[Any], *, title: str, height: int, **layout: Any) -> go.Figure:
    """A figure in the page's template; `title` is Plotly's small HTML, so names in it come escaped."""
    return go.Figure(
        data=list(traces), layout={"template": TEMPLATE, "title": {"text": title}, "height": height, **layout}
    )
