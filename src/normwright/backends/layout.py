"""How each family of operators sees its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """How an operator sees its tensors.

    Args:
        view: the shape that x, dy and residual are viewed in.
        moment_axes: the axes of the view that a moment is taken over.
        parameter_view: the shape in which weight and bias broadcast against the view.
        parameter_axes: the axes of the view that their gradients are summed over.
    """

    view: Sequence[int]
    moment_axes: list[int]
    parameter_view: Sequence[int]
    parameter_axes: list[int]


def rows_layout(x: Tensor, trailing_axes: int) -> Layout:
    """Moments over the trailing axes; a parameter per element of a row."""
    outer = x.dim() - trailing_axes
    return Layout(x.shape, list(range(outer, x.dim())), x.shape[outer:], list(range(outer)))


def channels_layout(x: Tensor, channel_axis: int = 1) -> Layout:
    """Moments over all axes but the channel's; a parameter per channel."""
    axes = [axis for axis in range(x.dim()) if axis != channel_axis]
    return Layout(x.shape, axes, [-1] + [1] * (x.dim() - 1 - channel_axis), axes)


def groups_layout(x: Tensor, groups: int) -> Layout:
    """Moments over a group of channels and space, within a sample; a parameter per channel."""
    n, c, *space = x.shape
    share = c // max(groups, 1)  # without channels there may be no groups
    view = [n, groups, share, *space]
    axes = list(range(3, len(view)))
    return Layout(view, [2, *axes], [groups, share] + [1] * len(space), [0, *axes])
