"""The plot of one claim: lines with their bands over seeds, or points with ranges over categories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import plotly.graph_objects as go

from normwright.lab.book.record import ClaimRecord, Line
from normwright.report.escape import plotly_text
from normwright.report.palette import STYLES, translucent
from normwright.report.quantities import compact
from normwright.report.sections import Panel
from normwright.report.theme import frame, log_axis

HEIGHT = 420

# For lines that stand for no normaliser. Okabe & Ito's, as those of the normalisers.
_OTHERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d5560")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "x", "star")
_LONGEST = 14


def claim_panel(record: ClaimRecord) -> Panel | None:
    """The claim's plot; None where no seed gave a point."""
    drawn = [line for line in record.lines if any(y is not None for y in line.mean)]
    if not drawn:
        return None
    names = _categories(drawn)
    looks = list(_looks(drawn))
    keys = [f"{record.number}:{line.name}" for line in drawn]
    parts = list(zip(drawn, looks, keys, strict=True))
    if names:
        traces = [_points(line, look, key, names, place) for place, (line, look, key) in _spread(parts)]
    else:
        # All bands first, so that no band lies over a line.
        traces = [_band(*part) for part in parts if part[0].low != part[0].high] + [
            _curve(*part) for part in parts
        ]
    plot = record.plot
    figure = frame(
        traces,
        title=plotly_text(plot.title),
        height=HEIGHT,
        hovermode="closest" if names else "x unified",
        xaxis={"title": {"text": plotly_text(plot.x)}} | (_named(names) if names else _x_axis(record, drawn)),
        yaxis={"title": {"text": plotly_text(plot.y)}} | _y_axis(record, drawn),
    )
    lines = ", ".join(line.name for line in drawn)
    alt = f"{plot.title}: {plot.y} over {plot.x}. {'Points' if names else 'Lines'}: {lines}."
    return Panel(figure, alt)


def _categories(lines: Sequence[Line]) -> list[str]:
    """The names on x, in order; none where x are numbers."""
    if not any(isinstance(x, str) for line in lines for x in line.x):
        return []
    return list(dict.fromkeys(str(x) for line in lines for x in line.x))


def _looks(lines: Sequence[Line]) -> Iterator[tuple[str, str, str]]:
    """Colour, dash and marker of each line; those of one normaliser share its colour and differ by dash."""
    taken = {STYLES[line.norm].colour for line in lines if line.norm in STYLES}
    free = [colour for colour in _OTHERS if colour not in taken] or list(_OTHERS)
    seen: dict[str, int] = {}
    others = 0
    for place, line in enumerate(lines):
        if line.norm in STYLES:
            colour = STYLES[line.norm].colour
        else:
            colour = free[others % len(free)]
            others += 1
        seen[colour] = seen.get(colour, -1) + 1
        yield colour, _DASHES[seen[colour] % len(_DASHES)], _MARKERS[place % len(_MARKERS)]


def _curve(line: Line, look: tuple[str, str, str], key: str) -> Any:
    colour, dash, marker = look
    return go.Scatter(
        x=list(line.x),
        y=_compact(line.mean),
        name=plotly_text(line.name),
        legendgroup=key,
        mode="lines+markers" if len(line.x) <= 12 else "lines",
        line={"color": colour, "width": 2.2, "dash": dash},
        marker={"symbol": marker, "size": 7},
        hovertemplate="%{y:.4g}",
    )


def _band(line: Line, look: tuple[str, str, str], key: str) -> Any:
    """The lowest to the highest seed; a gap parts it in two, each closed by itself."""
    x: list[Any] = []
    y: list[float | None] = []
    for run in _runs(line):
        x += [*(line.x[i] for i in run), *(line.x[i] for i in reversed(run)), None]
        y += [*_compact([line.high[i] for i in run]), *_compact([line.low[i] for i in reversed(run)]), None]
    return go.Scatter(
        x=x,
        y=y,
        legendgroup=key,
        fill="toself",
        fillcolor=translucent(look[0], 0.16),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def _runs(line: Line) -> list[list[int]]:
    """Stretches of places where there are values."""
    runs: list[list[int]] = [[]]
    for place, mean in enumerate(line.mean):
        if mean is None:
            runs.append([])
        else:
            runs[-1].append(place)
    return [run for run in runs if run]


def _spread(parts: Sequence[Any]) -> Iterator[tuple[float, Any]]:
    """Each line's points a little beside the others', so that none hides another."""
    step = min(0.14, 0.6 / len(parts))
    for place, part in enumerate(parts):
        yield step * (place - (len(parts) - 1) / 2), part


def _points(line: Line, look: tuple[str, str, str], key: str, names: Sequence[str], beside: float) -> Any:
    colour, _, marker = look
    kept = [i for i, mean in enumerate(line.mean) if mean is not None]
    means = [line.mean[i] or 0.0 for i in kept]
    return go.Scatter(
        x=[round(names.index(str(line.x[i])) + beside, 3) for i in kept],
        y=_compact(means),
        error_y={
            "type": "data",
            "symmetric": False,
            "array": _compact([_or(line.high[i], m) - m for i, m in zip(kept, means, strict=True)]),
            "arrayminus": _compact([m - _or(line.low[i], m) for i, m in zip(kept, means, strict=True)]),
            "thickness": 2,
            "width": 4,
        },
        name=plotly_text(line.name),
        legendgroup=key,
        mode="markers",
        marker={"symbol": marker, "size": 10, "color": colour},
        customdata=[plotly_text(str(line.x[i])) for i in kept],
        hovertemplate="%{customdata}: %{y:.4g}",
    )


def _named(names: Sequence[str]) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [_wrapped(name) for name in names],
        "range": [-0.6, len(names) - 0.4],
    }


def _wrapped(name: str) -> str:
    """A name in lines that fit below an axis, and three of them at most."""
    lines = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _LONGEST:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    shown = lines[:3] if len(lines) <= 3 else [*lines[:2], f"{lines[2]}…"]
    return "<br>".join(plotly_text(_cut(line)) for line in shown)


def _cut(word: str) -> str:
    return word if len(word) <= 2 * _LONGEST else word[: 2 * _LONGEST - 1] + "…"


def _x_axis(record: ClaimRecord, lines: Sequence[Line]) -> dict[str, Any]:
    return log_axis(float(x) for line in lines for x in line.x) if record.plot.log_x else {}


def _y_axis(record: ClaimRecord, lines: Sequence[Line]) -> dict[str, Any]:
    if not record.plot.log_y:
        return {}
    return log_axis(y for line in lines for y in (*line.low, *line.high) if y is not None)


def _compact(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else compact(value) for value in values]


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
