"""The axes picture: a batch as a cube of samples, channels and space, the elements of one moment coloured.

Which elements those are comes from `normwright.reference.same_moment`, the same table of axes that the
mathematics uses; this file only looks at the cube from outside and above.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from normwright.lab.records import Comparison
from normwright.reference import KINDS, TABLE, same_moment
from normwright.report.palette import Style, mix, style_of
from normwright.report.sections import norms_compared

SHAPE = (4, 6, 4)  # samples, channels, places in space
NEAREST = tuple(size - 1 for size in SHAPE)  # the corner that the viewer sees three sides of
GROUPS = 3
LRN_WINDOW = 5  # torch.nn.LocalResponseNorm's usual size

_UNIT = 17.0
_ACROSS, _DOWN = _UNIT * 0.866, _UNIT * 0.5  # the cosine and the sine of 30 degrees: isometric
_PLAIN = "#e8ebee"
# Light falls from above left, so that the three sides of the cube can be told apart.
_SHADES = {"top": 0.0, "left": 0.09, "right": 0.2}

Mask = npt.NDArray[np.bool_]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Face:
    """One visible side of one element: an SVG points list and its colour."""

    points: str
    fill: str


@dataclass(frozen=True)
class Cube:
    """A normaliser's cube, with what stands under it."""

    style: Style
    faces: tuple[Face, ...]
    formula: str
    reduces: str
    elements: str
    counted: str
    words: str


@dataclass(frozen=True)
class AxisName:
    """The name of an edge of the cube, beside the middle of that edge."""

    text: str
    x: float
    y: float
    anchor: str


VIEW_BOX = "-92 -72 190 168"  # the projected cube, with room for the names of its edges


def axis_names() -> tuple[AxisName, ...]:
    """The names of the three edges that end in the corner at the bottom."""
    samples, channels, places = SHAPE
    (cx, cy), (nx, ny), (sx, sy) = (
        _project(middle)
        for middle in (
            (channels / 2, samples, 0),
            (channels, samples / 2, 0),
            (0, samples, places / 2),
        )
    )
    return (
        AxisName("C", cx - 6, cy + 14, "end"),
        AxisName("N", nx + 6, ny + 14, "start"),
        AxisName("H, W", sx - 6, sy + 3, "end"),
    )


_ALL, _HALF = slice(None), SHAPE[0] // 2
# What a moment is taken over, as an index into the cube; with time along the axis of space.
_MARKED = {
    "lrn": (NEAREST[0], slice(-LRN_WINDOW, None), NEAREST[2]),
    "renorm": (_ALL, NEAREST[1]),
    "ghost": (slice(_HALF, None), NEAREST[1]),
    "whitening": (_ALL, slice(-(SHAPE[1] // GROUPS), None)),
    "frn": (NEAREST[0], NEAREST[1]),
    "ws": (NEAREST[0], slice(-(SHAPE[1] // GROUPS), None)),
    "recurrent-batch": (_ALL, NEAREST[1], NEAREST[2]),
    "recurrent-layer": (NEAREST[0], _ALL, NEAREST[2]),
}
_FORMULAS = {
    "none": "y = x",
    "renorm": "y = (x̂ · r + d) · weight + bias, r and d towards the running moments",
    "whitening": "y = covariance^(−1/2) · (x − mean) · weight + bias",
    "frn": "y = x / √(mean(x²) + eps) · weight + bias",
    "dyt": "y = tanh(α · x) · weight + bias",
    "weight": "y = x; before it, weight = g · v / ‖v‖",
    "rms": "y = x / √(mean(x²) + eps) · weight",
    "lrn": "y = x / (k + α · mean(x²))^β",
}
_STANDARDISE = "y = (x − mean) / √(variance + eps) · weight + bias"
_WORDS = {
    "none": "No moment is taken: every element passes as it is. The rest is compared with this.",
    "batch": "One channel, over all samples and all of space. Each sample depends on its company.",
    "layer": "One sample, over all its channels and all of space. The batch size does not matter.",
    "instance": "One channel of one sample, over space alone.",
    "group": "A group of channels of one sample, over space: between layer and instance.",
    "rms": "As layer norm, but the mean is taken as 0 and not removed.",
    "lrn": "A window of neighbouring channels at one place of one sample; it slides along the channels.",
    "renorm": "As batch norm, corrected to what the running moments will give in inference.",
    "ghost": "As batch norm, over a part of the batch alone: large batches keep the noise of small ones.",
    "whitening": "A group of channels over all samples and space: made uncorrelated, not standardised alone.",
    "frn": "One channel of one sample, over space: divided by its root mean square, no mean removed.",
    "dyt": "No moment is taken: each element is squashed by itself, at a slope that is learned.",
    "ws": "As group norm, after a layer whose weights are standardised over the inputs of each output.",
    "weight": "No moment is taken: the weight of the layer before has a length and a direction of its own.",
    "recurrent-batch": "Inside of the LSTM: one unit over all samples, at one time step.",
    "recurrent-layer": "Inside of the LSTM: all units of one sample, at one time step.",
}

# Of those that are in no table of axes: what a moment is taken over, and how many elements that are.
_REDUCES = {
    "lrn": (f"{LRN_WINDOW} neighbouring channels", str(LRN_WINDOW)),
    "renorm": ("N, H, W", "N·H·W"),
    "ghost": ("ghost_size of N, H, W", "ghost_size·H·W"),
    "whitening": ("N, H, W, for a group of channels together", "group_size·N·H·W"),
    "frn": ("H, W", "H·W"),
    "ws": ("C/G, H, W", "C/G·H·W"),
    "recurrent-batch": ("N, at each time step", "N"),
    "recurrent-layer": ("C, at each time step", "C"),
}


def cubes(comparison: Comparison) -> tuple[Cube, ...]:
    """The cube of each normaliser compared, in the order asked for."""
    return tuple(map(cube, norms_compared(comparison)))


def cube(norm: str) -> Cube:
    """The cube of one normaliser.

    Example:
        >>> cube("batch").counted
        '16 of the 96 elements drawn'
    """
    style = style_of(norm)
    marked = coloured(norm)
    row = {row.kind: row for row in TABLE}.get(norm)
    reduces, elements = _REDUCES.get(norm, ("nothing", "none"))
    return Cube(
        style=style,
        faces=tuple(_faces(marked, style.colour)),
        formula=_FORMULAS.get(norm, _STANDARDISE),
        reduces=", ".join(row.reduces) if row else reduces,
        elements=row.elements if row else elements,
        counted=f"{int(marked.sum())} of the {marked.size} elements drawn" if marked.any() else "",
        words=_WORDS[norm],
    )


def coloured(norm: str) -> Mask:
    """The elements that share one moment with an element at the visible edge: `SHAPE`, boolean.

    Example:
        >>> int(coloured("instance").sum()), int(coloured("none").sum())
        (4, 0)
    """
    if norm in KINDS:
        return same_moment(norm, SHAPE, NEAREST, groups=GROUPS if norm == "group" else None)
    marked = np.zeros(SHAPE, dtype=np.bool_)
    if norm in _MARKED:
        marked[_MARKED[norm]] = True
    return marked


def _faces(marked: Mask, colour: str) -> Iterator[Face]:
    samples, channels, places = marked.shape
    for n, c in np.ndindex(samples, channels):
        corners = ((c, n, places), (c + 1, n, places), (c + 1, n + 1, places), (c, n + 1, places))
        yield _face(corners, "top", colour if marked[n, c, -1] else _PLAIN)
    for c, s in np.ndindex(channels, places):
        corners = ((c, samples, s), (c + 1, samples, s), (c + 1, samples, s + 1), (c, samples, s + 1))
        yield _face(corners, "left", colour if marked[-1, c, s] else _PLAIN)
    for n, s in np.ndindex(samples, places):
        corners = ((channels, n, s), (channels, n + 1, s), (channels, n + 1, s + 1), (channels, n, s + 1))
        yield _face(corners, "right", colour if marked[n, -1, s] else _PLAIN)


def _face(corners: tuple[Point, ...], side: str, fill: str) -> Face:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(_project, corners))
    return Face(points, mix(fill, "#000000", _SHADES[side]))


def _project(point: Point) -> tuple[float, float]:
    """Channels run down to the right, samples down to the left, space upwards; the origin is at the back."""
    c, n, s = point
    return (c - n) * _ACROSS, (c + n) * _DOWN - s * _UNIT
