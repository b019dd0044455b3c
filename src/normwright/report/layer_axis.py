"""The axis that layers stand on, from the input of a network to its loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from normwright.report.escape import plotly_text

MOST_TICKS = 8
LONGEST_TICK = 12


def layer_ticks(layers: Sequence[str]) -> dict[str, Any]:
    """Ticks at whole positions, named; hovering gives the names that have no room.

    Example:
        >>> layer_ticks(["a.norm", "b.norm"])["ticktext"]
        ['a', 'b']
    """
    stride = math.ceil(len(layers) / MOST_TICKS)
    places = list(range(0, len(layers), stride))
    names = _without_common_end(layers)
    texts = [plotly_text(_shortened(names[place])) for place in places]
    angle = -50 if sum(map(len, texts)) > 24 else 0
    return {
        "tickvals": places,
        "ticktext": texts,
        "tickangle": angle,
        "ticklabeloverflow": "allow",
        "range": [-0.4, len(layers) - 0.6],
    }


def _without_common_end(names: Sequence[str]) -> list[str]:
    """Dotted names without a last part that says nothing, where they still differ without it.

    Example:
        >>> _without_common_end(["hidden1.linear", "hidden2.linear", "output"])
        ['hidden1', 'hidden2', 'output']
        >>> _without_common_end(["1.norm"])  # alone it would be taken for the module around it
        ['1.norm']
    """
    short = [name.rpartition(".")[0] or name for name in names]
    return short if 1 < len(names) == len(set(short)) else list(names)


def _shortened(name: str) -> str:
    """The end of a long dotted name, in whole parts where they fit: beginnings repeat.

    Example:
        >>> _shortened("classifier.0.linear1")
        '…0.linear1'
    """
    while len(name) > LONGEST_TICK and "." in name.lstrip("…"):
        name = "…" + name.lstrip("…").partition(".")[2]
    return name if len(name) <= LONGEST_TICK else "…" + name[-(LONGEST_TICK - 1) :]
