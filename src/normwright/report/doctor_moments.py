"""What normalisers take from a batch: how noisy it is by the batch's size, and what inference makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from normwright.doctor.statistics.modes import ModeFacts
from normwright.doctor.statistics.moments import MomentFacts
from normwright.doctor.statistics.running import RunningFacts
from normwright.network.counting import how_many
from normwright.report.escape import plotly_text
from normwright.report.layer_axis import layer_ticks
from normwright.report.palette import along
from normwright.report.quantities import compact
from normwright.report.sections import Panel, Section, View
from normwright.report.theme import frame, log_axis

HEIGHT = 380
# From the input (dark) to the loss (light), also told apart in print without colour.
DEPTH = ("#053061", "#2166ac", "#4393c3", "#92c5de")
OUTPUTS, STATISTICS = (
    ("outputs, as the mode changes", "#0072b2"),
    ("outputs, by running statistics for the data's", "#d55e00"),
)


def gap_section(moments: Sequence[MomentFacts], running: Sequence[RunningFacts]) -> Section:
    """One view: by layer, how far training mode and inference mode lie apart."""
    names = list(dict.fromkeys([*(facts.layer for facts in moments), *(facts.layer for facts in running)]))
    gaps = {facts.layer: facts.gap for facts in moments if math.isfinite(facts.gap)}
    wrong = {facts.layer: facts.gap for facts in running if math.isfinite(facts.gap)}
    if not gaps and not wrong:
        return Section((), empty="There is nothing to draw here: no normaliser keeps running statistics.")
    figure = frame(
        [_bars(names, gaps, *OUTPUTS), _bars(names, wrong, *STATISTICS)],
        title="Relative difference",
        height=HEIGHT,
        barmode="group",
        margin={"l": 44},
        xaxis={
            **layer_ticks(names),
            "title": {"text": "normaliser, from input to loss"},
            "range": [-0.6, len(names) - 0.4],
        },
        yaxis={"tickformat": ".0%", "rangemode": "tozero"},
    )
    alt = "Relative difference of each normaliser's outputs between training and inference mode, by layer."
    return Section((View(None, (Panel(figure, alt),)),))


def _bars(names: Sequence[str], values: dict[str, float], name: str, colour: str) -> Any:
    return go.Bar(
        x=list(range(len(names))),
        y=[compact(values[layer]) if layer in values else None for layer in names],
        customdata=list(map(plotly_text, names)),
        name=name,
        legendgroup=name,
        marker={"color": colour},
        hovertemplate=f"%{{customdata}}<br>{name}: %{{y:.2%}}<extra></extra>",
    )


def modes_in_words(modes: ModeFacts, running: Sequence[RunningFacts]) -> tuple[str, ...]:
    """What the two modes come to for the whole network."""
    sentences = []
    # One sample has no deviation that a difference could be held against.
    if math.isfinite(modes.outputs):
        differ = f"differ by {modes.outputs:.1%}, all else held"
        sentences.append(f"The network's outputs in the two modes {differ}.")
    if math.isfinite(modes.loss_training) and math.isfinite(modes.loss_inference):
        sentences.append(
            f"The loss is {modes.loss_training:.4g} in training mode and {modes.loss_inference:.4g} in "
            "inference mode."
        )
    if math.isfinite(modes.accuracy_training) and math.isfinite(modes.accuracy_inference):
        sentences.append(
            f"The accuracy is {modes.accuracy_training:.1%} and {modes.accuracy_inference:.1%}, over "
            f"{how_many(modes.samples, 'sample')}."
        )
    if running and all(facts.untrained for facts in running):
        sentences.append("It was never trained: its running statistics are as built.")
    return tuple(sentences)


def noise_section(moments: Sequence[MomentFacts]) -> Section:
    """One view: the noise of mean and variance against the batch size, a line for each normaliser."""
    drawn = [facts for facts in moments if facts.noise]
    if not drawn:
        return Section((), empty="There is nothing to draw here: no normaliser takes moments over a batch.")
    panels = (
        _noise(drawn, "Noise of the mean, in deviations", "mean"),
        _noise(drawn, "Noise of the variance, as a share of it", "variance"),
    )
    return Section((View(None, panels),))


def _noise(moments: Sequence[MomentFacts], title: str, quantity: str) -> Panel:
    values = [getattr(noise, quantity) for facts in moments for noise in facts.noise]
    sizes = sorted({noise.samples for facts in moments for noise in facts.noise})
    figure = frame(
        [
            _noise_line(facts, quantity, place / max(len(moments) - 1, 1))
            for place, facts in enumerate(moments)
        ],
        title=title,
        height=HEIGHT,
        xaxis={
            "title": {"text": "samples in the batch"},
            "type": "log",
            "tickvals": sizes,
            "ticktext": list(map(str, sizes)),
        },
        yaxis=log_axis(values),
        showlegend=len(moments) <= len(DEPTH),
    )
    return Panel(figure, f"{title}, against the batch size, one line per normaliser.")


def _noise_line(facts: MomentFacts, quantity: str, depth: float) -> Any:
    points = sorted((noise.samples, getattr(noise, quantity), noise.elements) for noise in facts.noise)
    name = plotly_text(facts.layer)
    return go.Scatter(
        x=[samples for samples, _, _ in points],
        y=[compact(value) if math.isfinite(value) and value > 0 else None for _, value, _ in points],
        customdata=[[name, f"{elements:,.0f}"] for _, _, elements in points],
        name=name,
        legendgroup=name,
        mode="lines+markers",
        line={"color": along(DEPTH, depth), "width": 1.8},
        marker={"size": 6},
        hovertemplate="%{customdata[0]}<br>batch of %{x}, %{customdata[1]} elements per moment: %{y:.3g}"
        "<extra></extra>",
    )
