"""The figures of a batch-size search: samples per second, memory, and the noise of moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from normwright.lab.batch_size.records import BatchSizes, LayerNoise, MomentNoise, SizeTrial
from normwright.report.palette import MUTED, PAPER
from normwright.report.quantities import compact
from normwright.report.sections import Panel
from normwright.report.theme import frame, log_axis

_COLOUR = "#0072b2"
_SECOND = "#d55e00"
_HEIGHT = 340
_MEBIBYTE = 2**20


def size_panels(found: BatchSizes) -> tuple[Panel, ...]:
    """Rate and memory, and the noise of mean and variance where the network has batch norms."""
    noisy = [(trial, trial.noise) for trial in found.trials if trial.noise is not None]
    panels = (_rate(found), _memory(found))
    if not noisy:
        return panels
    return (*panels, _mean_noise(found, noisy), _variance_noise(found, noisy))


def _rate(found: BatchSizes) -> Panel:
    trials = found.trials
    line = _line(
        found, trials, [trial.rate for trial in trials], "samples per second", "%{y:,.4~g} per second"
    )
    line.error_y = {
        "array": [compact(_finite(trial.rate_high, trial.rate) - trial.rate) for trial in trials],
        "arrayminus": [compact(trial.rate - trial.rate_low) for trial in trials],
        "thickness": 1.5,
        "width": 4,
    }
    best = max(trial.rate for trial in trials)
    figure = _figure(found, [line], "Samples per second", {"rangemode": "tozero"}, showlegend=False)
    figure.add_hline(
        y=compact((1 - found.tolerance) * best),
        line={"color": MUTED, "dash": "dash", "width": 1.5},
        annotation={
            "text": f"{100 * (1 - found.tolerance):g} % of the best",
            "font": {"size": 11, "color": MUTED},
            "xanchor": "left",
            "x": 0,
            "yanchor": "bottom",
        },
    )
    return Panel(figure, f"Samples per second against batch size; {found.recommended} is the size to take.")


def _memory(found: BatchSizes) -> Panel:
    mebibytes = [trial.peak_bytes / _MEBIBYTE for trial in found.trials]
    line = _line(found, found.trials, mebibytes, "memory", "%{y:,.4~g} MiB")
    figure = _figure(
        found, [line], "Memory of a step, MiB (log scale)", log_axis(mebibytes), showlegend=False
    )
    return Panel(figure, "The most bytes that tensors hold at once in a step, against batch size.")


def _mean_noise(found: BatchSizes, noisy: Sequence[tuple[SizeTrial, MomentNoise]]) -> Panel:
    series = {
        "largest of the layers": [noise.mean_largest for _, noise in noisy],
        "median": [noise.mean_median for _, noise in noisy],
        "1/√m, median": [_median([layer.mean_expected for layer in noise.layers]) for _, noise in noisy],
    }
    alt = "Noise of mini-batch means in population deviations, against batch size."
    return Panel(_noise(found, noisy, series, "Noise of the mean, σ (log scale)"), alt)


def _variance_noise(found: BatchSizes, noisy: Sequence[tuple[SizeTrial, MomentNoise]]) -> Panel:
    series = {
        "largest of the layers": [noise.variance_largest for _, noise in noisy],
        "median": [noise.variance_median for _, noise in noisy],
        "√(2/(m−1)), median": [_median([_expected(layer) for layer in noise.layers]) for _, noise in noisy],
    }
    alt = "Noise of mini-batch variances in population variances, against batch size."
    return Panel(_noise(found, noisy, series, "Noise of the variance, σ² (log scale)"), alt)


def _noise(
    found: BatchSizes,
    noisy: Sequence[tuple[SizeTrial, MomentNoise]],
    series: dict[str, list[float]],
    title: str,
) -> Any:
    trials = [trial for trial, _ in noisy]
    looks = ((_SECOND, "solid"), (_COLOUR, "solid"), (MUTED, "dash"))
    traces = []
    for (name, values), (colour, dash) in zip(series.items(), looks, strict=True):
        trace = _line(found, trials, values, name, "%{y:.3~g}", colour=colour)
        trace.line.dash = dash
        if dash == "dash":
            trace.mode = "lines"
        trace.legendgroup = name
        traces.append(trace)
    figure = _figure(
        found,
        traces,
        title,
        log_axis(value for values in series.values() for value in values),
        showlegend=True,
    )
    figure.update_layout(margin_b=34)
    return figure


def _line(
    found: BatchSizes,
    trials: Sequence[SizeTrial],
    values: Sequence[float],
    name: str,
    told: str,
    *,
    colour: str = _COLOUR,
) -> Any:
    """A line with a hollow mark at each size, and a filled one at the size to take."""
    return go.Scatter(
        x=[trial.batch_size for trial in trials],
        y=list(map(compact, values)),
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2.2},
        marker={
            "size": [12 if trial.batch_size == found.recommended else 7 for trial in trials],
            "color": [colour if trial.batch_size == found.recommended else PAPER for trial in trials],
            "line": {"color": colour, "width": 2},
        },
        hovertemplate=f"batch size %{{x:,}}<br>{told}<extra></extra>",
    )


def _figure(
    found: BatchSizes, traces: Sequence[Any], title: str, y: dict[str, Any], *, showlegend: bool
) -> Any:
    sizes = [trial.batch_size for trial in found.trials]
    axis = log_axis(sizes)
    # Every size that was run where there is room, else every second or third.
    stride = -(-len(sizes) // 8)
    axis |= {"tickvals": sizes[::stride], "ticktext": [f"{size:,}" for size in sizes[::stride]]}
    return frame(
        traces, title=title, height=_HEIGHT, xaxis={"title": {"text": "batch size"}, **axis}, yaxis=y,
        showlegend=showlegend,
    )  # fmt: skip


def _expected(layer: LayerNoise) -> float:
    return layer.variance_expected


def _median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def _finite(value: float, otherwise: float) -> float:
    return value if value < float("inf") else otherwise
