"""How each layer's values are spread: percentile ribbons over the training steps, and by depth."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import plotly.graph_objects as go

from normwright.doctor.training.activations import ActivationFacts
from normwright.doctor.training.spread import PERCENTILES, Spread
from normwright.network.counting import how_many
from normwright.report.escape import plotly_text
from normwright.report.layer_axis import layer_ticks
from normwright.report.palette import translucent
from normwright.report.quantities import compact, share
from normwright.report.sections import Panel, Section, View
from normwright.report.theme import frame

HEIGHT, DEPTH_HEIGHT = 330, 380
_TICKS = 6
INPUT, OUTPUT = "#d55e00", "#0072b2"
_LOW, _MIDDLE, _HIGH = PERCENTILES.index(15), PERCENTILES.index(50), PERCENTILES.index(85)


def layers_section(activations: Sequence[ActivationFacts], found: Collection[str]) -> Section:
    """One view for each layer: its input and output over the steps.

    Args:
        activations: of layers, in the order of the forward pass.
        found: names of layers that have findings; they come first.
    """
    drawn = [facts for facts in activations if facts.outputs]
    if not drawn:
        return Section((), empty="There is nothing to draw here: no layer was watched.")
    drawn.sort(key=lambda facts: facts.layer not in found)
    return Section(tuple(map(_view, drawn)))


def _view(facts: ActivationFacts) -> View:
    parts = (("input", facts.inputs, INPUT), ("output", facts.outputs, OUTPUT))
    panels = tuple(_panel(facts, name, spreads, colour) for name, spreads, colour in parts if spreads)
    return View(None, panels, _notes(facts), facts.layer)


def _notes(facts: ActivationFacts) -> tuple[str, ...]:
    notes = []
    if facts.flat:
        notes.append(
            f"In the flat part of {facts.kind}: {share(facts.flat[-1])} of the outputs at the last step."
        )
    if facts.units:
        units = "channels" if facts.spatial else "units"
        notes.append(f"Never active: {len(facts.dead):,} of {facts.units:,} {units}.")
    spoilt = sum(spread.nonfinite for spread in (*facts.inputs, *facts.outputs))
    if spoilt:
        notes.append(f"Left out of the ribbons, as NaN or infinite: {how_many(spoilt, 'value')}.")
    return tuple(notes)


def _panel(facts: ActivationFacts, name: str, spreads: Sequence[Spread], colour: str) -> Panel:
    steps = [spread.step for spread in spreads]
    # Between whole steps Plotly would put ticks that read as the same step twice.
    ticks = {"dtick": 1} if max(steps, default=0) < _TICKS else {"nticks": _TICKS, "tickformat": "d"}
    figure = frame(
        ribbon(steps, spreads, colour),
        title=f"{name.capitalize()} of {plotly_text(facts.kind)}",
        height=HEIGHT,
        showlegend=False,
        xaxis={"title": {"text": "training step"}, **ticks},
    )
    return Panel(figure, f"Percentiles of the {name} of {facts.layer} over training steps.")


def ribbon(
    places: Sequence[int], spreads: Sequence[Spread], colour: str, names: Sequence[str] = ()
) -> list[Any]:
    """Percentiles as bands around the median: the outer two wide and pale, 15 to 85 within.

    Args:
        places: of the spreads, along the axis.
        spreads: those whose percentiles are finite are drawn.
        colour: of the line, and of the bands.
        names: of the places, for hovering.
    """
    points = [
        (place, spread, name)
        for place, spread, name in zip(places, spreads, names or [""] * len(places), strict=True)
        if all(map(math.isfinite, spread.percentiles))
    ]
    along = [place for place, _, _ in points]
    rows = [[compact(value) for value in spread.percentiles] for _, spread, _ in points]
    bands = [
        go.Scatter(
            x=[*along, *reversed(along)],
            y=[*(row[high] for row in rows), *(row[low] for row in reversed(rows))],
            fill="toself",
            fillcolor=translucent(colour, alpha),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
        for low, high, alpha in ((0, len(PERCENTILES) - 1, 0.1), (_LOW, _HIGH, 0.22))
    ]
    median = go.Scatter(
        x=along,
        y=[row[_MIDDLE] for row in rows],
        customdata=[
            [row[_LOW], row[_HIGH], plotly_text(name)] for row, (_, _, name) in zip(rows, points, strict=True)
        ],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5},
        hovertemplate=("%{customdata[2]}<br>" if names else "step %{x}<br>")
        + "85 %: %{customdata[1]:.3g}<br>median: %{y:.3g}<br>15 %: %{customdata[0]:.3g}<extra></extra>",
        showlegend=False,
    )
    return [*bands, median]


def depth_section(activations: Sequence[ActivationFacts]) -> Section:
    """One picture of all layers: the outputs' percentiles at the last step, from the input to the loss."""
    drawn = [facts for facts in activations if facts.outputs]
    if len(drawn) < 2:
        return Section(())
    names = [facts.layer for facts in drawn]
    figure = frame(
        ribbon(range(len(drawn)), [facts.outputs[-1] for facts in drawn], OUTPUT, names),
        title="Outputs of every layer at the last step",
        height=DEPTH_HEIGHT,
        showlegend=False,
        margin={"l": 44},
        xaxis={**layer_ticks(names), "title": {"text": "layer, from input to loss"}},
    )
    return Section((View(None, (Panel(figure, "Percentiles of the outputs of every layer by depth."),)),))
