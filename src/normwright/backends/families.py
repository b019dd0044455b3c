"""The shapes that each family of operators asks of its arguments, which hang on x and the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from normwright.backends import masks
from normwright.errors import ShapeError

# The arguments of a call, by their names.
Given = Mapping[str, Any]
Shape = Sequence[int]


class Family(NamedTuple):
    """The shapes that a family asks for, as functions of the arguments.

    Args:
        parameter: of weight and of what else has an element for each channel or so.
        why: of that shape.
        moments: of those that the forward keeps.
        order: of its mask.
    """

    parameter: Callable[[Given], Shape]
    why: str
    moments: Callable[[Given], Shape]
    order: Callable[[Given], masks.Order]


def _nothing_kept(given: Given) -> Any:
    raise AssertionError("an operator of this family has neither moments nor a mask")


def _trailing(given: Given) -> Shape:
    x: Tensor = given["x"]
    axes = given["axes"]
    if not 1 <= axes <= x.dim():
        raise ShapeError(f"axes must be at least 1 and at most those of x, {x.dim()}, but is {axes}")
    return x.shape[x.dim() - axes :]


def _each_channel(given: Given) -> Shape:
    shape: Shape = given["x"].shape
    if len(shape) < 2:
        raise ShapeError(f"x must be (N, C, *space), but has shape {list(shape)}")
    return shape[1:2]


def _grouped_channels(given: Given) -> Shape:
    shape, groups = _each_channel(given), given["groups"]
    channels = shape[0]
    # Without channels there may be no groups.
    if channels % groups if groups > 0 else (groups or channels):
        raise ShapeError(f"groups must divide the channels of x, {channels}, but is {groups}")
    return shape


def _channels_on_axis(given: Given) -> Shape:
    if "axis" not in given:
        return _each_channel(given)
    x: Tensor = given["x"]
    axis = given["axis"]
    if not 0 <= axis < x.dim():
        raise ShapeError(f"axis must be at least 0 and below the axes of x, {x.dim()}, but is {axis}")
    return x.shape[axis : axis + 1]


def _mean_and_rstd(given: Given) -> int:
    return 2 if given["center"] else 1


_EACH_CHANNEL = "an element for each channel"

# By the beginning of an operator's name.
FAMILIES = {
    "rows": Family(
        _trailing,
        "that of the axes that are normalised",
        lambda given: (_mean_and_rstd(given), *given["x"].shape[: given["x"].dim() - given["axes"]]),
        lambda given: masks.rows_order(given["x"], given["axes"]),
    ),
    "groups": Family(
        _grouped_channels,
        _EACH_CHANNEL,
        lambda given: (_mean_and_rstd(given), given["x"].shape[0], given["groups"]),
        lambda given: masks.groups_order(given["x"], given["groups"]),
    ),
    "channels": Family(
        _each_channel,
        _EACH_CHANNEL,
        lambda given: (2, given["x"].shape[1]),
        lambda given: masks.channels_order(given["x"]),
    ),
    "parts": Family(
        _each_channel,
        _EACH_CHANNEL,
        lambda given: (3, given["parts"], given["x"].shape[1]),
        _nothing_kept,
    ),
    "channel": Family(_channels_on_axis, _EACH_CHANNEL, _nothing_kept, _nothing_kept),
    "lstm": Family(_nothing_kept, "", _nothing_kept, _nothing_kept),
}
