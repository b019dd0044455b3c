"""The table of axes: what a moment is taken over, and what weight and bias are shared over.

Picture a batch as a cube with N samples along one edge, C channels along another, and all positions
in space along the third. A normaliser cuts the cube into classes of elements that share one mean and
one variance. Batch norm cuts one slab per channel; layer norm, one slab per sample; instance norm,
one bar per sample and channel; group norm, for each sample, a bundle of such bars, one per channel
of the group. That cut is all that tells them apart.

Two consequences can be read off the table before anything is computed:

- Batch norm alone reduces over N, so it alone makes one sample's output depend on its company.
  It alone therefore needs other moments at inference (`population.py`), and it alone suffers when N
  is small.
- Weight and bias are shared over other axes than the moments. Group norm takes a moment over several
  channels, yet each channel has its own weight. This is why an element's affine map is not part of
  its class, and why the table has a column for it.

Two ends of group norm are old friends: one group is layer norm over C, H, W; as many groups as
channels is instance norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from normwright.errors import OptionError, ShapeError, unknown_name


@dataclass(frozen=True)
class TableRow:
    """One row of the table, for x of (N, C, H, W) and G groups.

    Args:
        kind: the name that `axes_of` takes.
        reduces: the axes that a moment is taken over.
        parameters: the axes along which weight and bias vary; they are shared over the rest.
        center: whether the mean is taken away; if not, it is taken as 0.
    """

    kind: str
    reduces: tuple[str, ...]
    parameters: tuple[str, ...]
    center: bool = True

    @property
    def elements(self) -> str:
        """Elements per moment, as a formula.

        Example:
            >>> [row.elements for row in TABLE]
            ['N·H·W', 'C·H·W', 'H·W', '(C/G)·H·W', 'C·H·W']
        """
        return "·".join(f"({axis})" if "/" in axis else axis for axis in self.reduces)


TABLE = (
    TableRow("batch", ("N", "H", "W"), ("C",)),
    TableRow("layer", ("C", "H", "W"), ("C", "H", "W")),
    TableRow("instance", ("H", "W"), ("C",)),
    TableRow("group", ("C/G", "H", "W"), ("C",)),
    TableRow("rms", ("C", "H", "W"), ("C", "H", "W"), center=False),
)

KINDS = tuple(row.kind for row in TABLE)


@dataclass(frozen=True)
class Axes:
    """A row of the table, worked out for one shape.

    Args:
        shape: the shape of x.
        view: the shape that x is viewed in; another than `shape` for group norm alone, which splits
            the channels into (G, C/G).
        reduce: the axes of the view that a moment is taken over.
        weight_shape: the shape of weight and bias, as torch keeps them.
        parameter_shape: the same numbers, in a shape that broadcasts against the view.
    """

    shape: tuple[int, ...]
    view: tuple[int, ...]
    reduce: tuple[int, ...]
    weight_shape: tuple[int, ...]
    parameter_shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements per moment: the m of the formulas."""
        return math.prod(self.view[axis] for axis in self.reduce)

    @property
    def moment_shape(self) -> tuple[int, ...]:
        """One number per moment: (C,) of batch, (N, C) of instance, (N, G) of group, else leading axes."""
        return tuple(size for axis, size in enumerate(self.view) if axis not in self.reduce)

    @property
    def shared(self) -> tuple[int, ...]:
        """The axes of the view that weight and bias are shared over, and their gradients summed over."""
        return tuple(axis for axis, size in enumerate(self.parameter_shape) if size == 1)


def axes_of(
    kind: str,
    shape: Sequence[int],
    *,
    groups: int | None = None,
    normalized_shape: Sequence[int] | None = None,
) -> Axes:
    """Works out a row of the table for one shape.

    Args:
        kind: one of `KINDS`.
        shape: (N, C, *space) for batch, group and instance, the last with at least one axis of space;
            any shape for layer and rms.
        groups: G, of group alone; the others do not read it.
        normalized_shape: the trailing axes of layer and rms, all but the first by default; the others
            do not read it.

    Returns:
        The axes.

    Raises:
        OptionError: the kind is unknown, or group is asked for without groups.
        ShapeError: the shape has too few axes, does not end in normalized_shape, or has a number of
            channels that the groups do not divide.

    Example:
        >>> axes = axes_of("group", (8, 6, 5, 5), groups=2)
        >>> axes.view, axes.reduce, axes.parameter_shape
        ((8, 2, 3, 5, 5), (2, 3, 4), (1, 2, 3, 1, 1))
        >>> axes.count, axes.moment_shape, axes.weight_shape
        (75, (8, 2), (6,))
    """
    shape = tuple(shape)
    if kind in ("layer", "rms"):
        return _trailing_axes(kind, shape, shape[1:] if normalized_shape is None else tuple(normalized_shape))
    if kind == "batch":
        _need_axes(kind, shape, 2)
        return _channel_axes(shape, reduce=(0, *range(2, len(shape))))
    if kind == "instance":
        _need_axes(kind, shape, 3)
        return _channel_axes(shape, reduce=tuple(range(2, len(shape))))
    if kind == "group":
        _need_axes(kind, shape, 2)
        return _group_axes(shape, groups)
    raise unknown_name("normaliser", kind, KINDS)


def _need_axes(kind: str, shape: tuple[int, ...], least: int) -> None:
    if len(shape) < least:
        wanted = ("N", "C", "space")[:least]
        raise ShapeError(
            f"{kind} norm needs at least {least} axes ({', '.join(wanted)}), but the shape is {shape}: "
            "add the axes that are missing, each of size 1"
        )


def _channel_axes(shape: tuple[int, ...], reduce: tuple[int, ...]) -> Axes:
    channels = shape[1]
    parameter_shape = (1, channels, *(1 for _ in shape[2:]))
    return Axes(shape, shape, reduce, (channels,), parameter_shape)


def _group_axes(shape: tuple[int, ...], groups: int | None) -> Axes:
    if groups is None:
        raise OptionError("group norm needs a number of groups, but got None: pass groups=")
    samples, channels, *space = shape
    if groups < 1 or channels % groups:
        raise ShapeError(
            f"groups must be at least 1 and divide the channels, but there are {groups} groups and "
            f"{channels} channels: choose a divisor of {channels}"
        )
    split = (groups, channels // groups)
    view = (samples, *split, *space)
    parameter_shape = (1, *split, *(1 for _ in space))
    return Axes(shape, view, tuple(range(2, len(view))), (channels,), parameter_shape)


def _trailing_axes(kind: str, shape: tuple[int, ...], trailing: tuple[int, ...]) -> Axes:
    leading = len(shape) - len(trailing)
    if not trailing or leading < 0 or shape[leading:] != trailing:
        raise ShapeError(
            f"{kind} norm needs a normalized_shape of at least one axis that the shape ends in, but "
            f"normalized_shape is {trailing} and the shape is {shape}: pass sizes of its last axes"
        )
    return Axes(shape, shape, tuple(range(leading, len(shape))), trailing, (1,) * leading + trailing)
