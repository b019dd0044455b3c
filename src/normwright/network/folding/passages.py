"""Carries an affine map of the channels across an operator that it commutes with.

    f(scale·x + shift) = scale'·f(x) + shift'

holds for what moves elements about (reshape, permute, concatenation), for means (average pooling,
interpolation), and for a maximum where no scale is negative. scale' and shift' are scale and shift on the
axis where the channels then are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from normwright.network.flow import arguments_of, operator_of, shape_of
from normwright.network.folding.affine import Affine
from normwright.network.folding.block_affine import BlockAffine, ChannelMap, joined_with_identity


class BlockedError(Exception):
    """A map cannot be carried further; the message says why."""


@dataclass(frozen=True, eq=False)
class Carried:
    """A map of the channels, on the axis of a value where they are."""

    value: Node
    axis: int
    affine: ChannelMap


def before(node: Node, axis: int, affine: ChannelMap) -> list[Carried]:
    """The maps of a node's inputs that are together the map of its result.

    Raises:
        BlockedError: there are none.
    """
    operator = operator_of(node)
    if operator == "aten.cat":
        return _split(node, axis, affine)
    rule = _rule(node)
    x = _input(node)
    return [Carried(x, *rule(node, shape_of(node), axis, affine, shape_of(x), True))]


def behind(node: Node, source: Node, axis: int, affine: ChannelMap) -> Carried:
    """The map of a node's result that is the map of one of its inputs.

    Raises:
        BlockedError: there is none.
    """
    operator = operator_of(node)
    if operator == "aten.cat":
        return _joined(node, source, axis, affine)
    rule = _rule(node)
    tensors = [given for given in node.all_input_nodes if isinstance(given.meta.get("val"), Tensor)]
    if tensors != [source]:
        raise BlockedError(f"{operator} reads something else too")
    return Carried(node, *rule(node, shape_of(source), axis, affine, shape_of(node), False))


Rule = Callable[[Node, tuple[int, ...], int, ChannelMap, tuple[int, ...], bool], tuple[int, ChannelMap]]


def _rule(node: Node) -> Rule:
    rule = _RULES.get(operator_of(node))
    if rule is None:
        raise BlockedError(named(node))
    return rule


def named(node: Node) -> str:
    """What a node is, for a reader."""
    if node.op == "placeholder":
        return "the network's input"
    if node.op == "output":
        return "the network's output"
    return operator_of(node).removeprefix("aten.") or str(getattr(node.target, "__name__", node.target))


def _input(node: Node) -> Node:
    x = node.args[0]
    assert isinstance(x, Node)
    return x


def _same(
    node: Node, shape: tuple[int, ...], axis: int, affine: ChannelMap, other: tuple[int, ...], back: bool
) -> tuple[int, ChannelMap]:
    if arguments_of(node).get("train"):
        raise BlockedError(f"{named(node)} in training mode")
    if _input(node).meta["val"].dtype != node.meta["val"].dtype:
        raise BlockedError("a change of dtype")
    return axis, affine


def _reshaped(
    node: Node, shape: tuple[int, ...], axis: int, affine: ChannelMap, other: tuple[int, ...], back: bool
) -> tuple[int, ChannelMap]:
    found = across(shape, axis, affine, other)
    if found is None:
        raise BlockedError(f"{named(node)} from {list(shape_of(_input(node)))} to {list(shape_of(node))}")
    return found


def _permuted(
    node: Node, shape: tuple[int, ...], axis: int, affine: ChannelMap, other: tuple[int, ...], back: bool
) -> tuple[int, ChannelMap]:
    given = arguments_of(node)
    order = list(range(len(shape)))
    if operator_of(node) == "aten.permute":
        order = [dim % len(shape) for dim in given["dims"]]
    else:
        first, second = (given.get(name, place) % len(shape) for name, place in (("dim0", 0), ("dim1", 1)))
        order[first], order[second] = order[second], order[first]
    return (order[axis] if back else order.index(axis)), affine


def _averaged(
    node: Node, shape: tuple[int, ...], axis: int, affine: ChannelMap, other: tuple[int, ...], back: bool
) -> tuple[int, ChannelMap]:
    given = arguments_of(node)
    if axis >= len(shape) - _pooled_axes(node):
        raise BlockedError(f"{named(node)} over the channels")
    borders = any(given.get("padding") or ()) and given.get("count_include_pad", True)
    if given.get("divisor_override") is not None or (borders and bool(affine.shift.any())):
        raise BlockedError(f"{named(node)} that counts its padding")
    return axis, affine


def _largest(
    node: Node, shape: tuple[int, ...], axis: int, affine: ChannelMap, other: tuple[int, ...], back: bool
) -> tuple[int, ChannelMap]:
    if axis >= len(shape) - _pooled_axes(node):
        raise BlockedError(f"{named(node)} over the channels")
    if isinstance(affine, BlockAffine):
        raise BlockedError(f"{named(node)}, of a map that mixes channels")
    if bool((affine.scale < 0).any()):
        raise BlockedError(f"{named(node)}, where a scale is negative")
    return axis, affine


def _pooled_axes(node: Node) -> int:
    return next(int(letter) for letter in operator_of(node) if letter.isdigit())


def _mean(
    node: Node, shape: tuple[int, ...], axis: int, affine: ChannelMap, other: tuple[int, ...], back: bool
) -> tuple[int, ChannelMap]:
    given = arguments_of(node)
    dimensions = len(shape_of(_input(node)))
    dims = sorted(dim % dimensions for dim in (given.get("dim") or range(dimensions)))
    if given.get("dtype") is not None:
        raise BlockedError("a change of dtype")
    kept = [dim for dim in range(dimensions) if given.get("keepdim") or dim not in dims]
    where = kept[axis] if back else axis
    if where in dims:
        raise BlockedError("a mean over the channels")
    return (where if back else kept.index(axis)), affine


def _padded(
    node: Node, shape: tuple[int, ...], axis: int, affine: ChannelMap, other: tuple[int, ...], back: bool
) -> tuple[int, ChannelMap]:
    given = arguments_of(node)
    amounts: Sequence[int] = given.get("pad") or given["padding"]
    constant = "constant" in operator_of(node) or given.get("mode") == "constant"
    place = 2 * (len(shape) - 1 - axis)  # from the last axis, two amounts each
    if any(amounts[place : place + 2]):
        raise BlockedError("a padding of the channels")
    if constant and any(amounts) and (bool(affine.shift.any()) or given.get("value")):
        raise BlockedError("a padding with a constant")
    return axis, affine


def _split(node: Node, axis: int, affine: ChannelMap) -> list[Carried]:
    parts, along = _concatenated(node)
    if axis != along:
        return [Carried(part, axis, affine) for part in parts]
    sizes = [shape_of(part)[axis] for part in parts]
    pieces: Sequence[ChannelMap] | None = affine.split(sizes)
    if pieces is None:
        raise BlockedError("a concatenation within a group of channels")
    return [Carried(part, axis, piece) for part, piece in zip(parts, pieces, strict=True)]


def _joined(node: Node, source: Node, axis: int, affine: ChannelMap) -> Carried:
    parts, along = _concatenated(node)
    if axis != along:
        raise BlockedError("a concatenation with what is not normalised")
    joined = joined_with_identity(affine, [(part is source, shape_of(part)[axis]) for part in parts])
    if joined is None:
        raise BlockedError("a concatenation within a group of channels")
    return Carried(node, axis, joined)


def _concatenated(node: Node) -> tuple[Sequence[Node], int]:
    given = arguments_of(node)
    parts = given["tensors"]
    return parts, given["dim"] % len(shape_of(node))


def across(
    shape: Sequence[int], axis: int, affine: ChannelMap, other: Sequence[int]
) -> tuple[int, ChannelMap] | None:
    """The axis and the map that a map of one axis becomes where the same elements have another shape.

    Example:
        >>> affine = Affine(torch.tensor([2.0, 3.0]).double(), torch.zeros(2).double())
        >>> axis, flat = across((5, 2, 1, 2), 1, affine, (5, 4))
        >>> axis, flat.scale.tolist()
        (1, [2.0, 2.0, 3.0, 3.0])
        >>> across((5, 2), 1, affine, (10,)) is None  # along 10 the map is tiled by the batch
        False
        >>> across((2, 6), 0, affine, (4, 3)) is None
        False
    """
    if math.prod(shape) == 0 or not other:
        return None
    if isinstance(affine, BlockAffine):
        return _as_it_is(shape, axis, affine, other)
    if shape[axis] == 1:
        return _one_for_all(shape, axis, affine, other)
    start, stop, low, high = _block(shape, axis, other)
    block, there = tuple(shape[start:stop]), tuple(other[low:high])
    along = [1] * len(block)
    along[axis - start] = -1
    scale, shift = (part.view(along).expand(block).reshape(there) for part in (affine.scale, affine.shift))
    for place in range(len(there)):
        pair = [_only_along(part, place) for part in (scale, shift)]
        if pair[0] is not None and pair[1] is not None:
            return low + place, Affine(pair[0], pair[1])
    return None


def _as_it_is(
    shape: Sequence[int], axis: int, affine: BlockAffine, other: Sequence[int]
) -> tuple[int, BlockAffine] | None:
    """A map that mixes channels, where they are one axis still."""
    here = math.prod(shape[:axis])
    same = (p for p, size in enumerate(other) if size == shape[axis] and math.prod(other[:p]) == here)
    place = next(same, None)
    return None if place is None else (place, affine)


def _block(shape: Sequence[int], axis: int, other: Sequence[int]) -> tuple[int, int, int, int]:
    """The fewest axes around one axis that hold the same elements as some axes of another shape."""
    heads, others = ([math.prod(s[:place]) for place in range(len(s) + 1)] for s in (shape, other))
    start = next(place for place in range(axis, -1, -1) if heads[place] in others)
    stop = next(place for place in range(axis + 1, len(shape) + 1) if heads[place] in others)
    low = max(place for place, product in enumerate(others) if product == heads[start])
    high = min(place for place, product in enumerate(others) if product == heads[stop])
    return start, stop, low, high


def _one_for_all(
    shape: Sequence[int], axis: int, affine: Affine, other: Sequence[int]
) -> tuple[int, ChannelMap]:
    """The map of a single channel, on the axis of size 1 that it came from, or on any that is there."""
    here = math.prod(shape[:axis])
    same = (p for p, size in enumerate(other) if size == 1 and math.prod(other[:p]) == here)
    place = next(same, min(axis, len(other) - 1))
    return place, Affine(affine.scale.expand(other[place]), affine.shift.expand(other[place]))


def on_axis(axis: int, affine: ChannelMap, wanted: int, channels: int) -> ChannelMap | None:
    """A map of one axis as a map of another, which it is where all of its numbers are the same.

    Example:
        >>> affine = Affine(torch.tensor([2.0, 2.0]).double(), torch.zeros(2).double())
        >>> on_axis(1, affine, 2, 3).scale.tolist()
        [2.0, 2.0, 2.0]
    """
    if axis == wanted:
        return affine
    if isinstance(affine, BlockAffine):
        return None
    if any(bool((part != part[:1]).any()) for part in (affine.scale, affine.shift)):
        return None
    return Affine(affine.scale[:1].expand(channels), affine.shift[:1].expand(channels))


def _only_along(part: Tensor, axis: int) -> Tensor | None:
    """The numbers along one axis, where they are the same along all others."""
    line = part.movedim(axis, 0).reshape(part.shape[axis], -1)
    return line[:, 0].contiguous() if bool((line == line[:, :1]).all()) else None


_DIMENSIONS = ("1d", "2d", "3d")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("aten.alias", "aten.detach", "aten.clone", "aten.contiguous", "aten.lift_fresh_copy"),
            *("aten.to", "aten._to_copy", "aten.dropout", "aten.dropout_", "aten.alpha_dropout"),
            *("aten.feature_dropout", "aten.feature_alpha_dropout"),
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            *("aten.view", "aten.reshape", "aten.flatten", "aten.unflatten", "aten._unsafe_view"),
            *("aten.squeeze", "aten.unsqueeze"),
        ),
        _reshaped,
    ),
    **dict.fromkeys(("aten.permute", "aten.transpose", "aten.t", "aten.swapaxes"), _permuted),
    **dict.fromkeys(
        (
            *(f"aten.{kind}avg_pool{d}" for kind in ("", "adaptive_", "_adaptive_") for d in _DIMENSIONS),
            *(f"aten.upsample_{kind}" for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")),
            *(f"aten.upsample_nearest{d}" for d in _DIMENSIONS),
        ),
        _averaged,
    ),
    **dict.fromkeys((f"aten.max_pool{d}" for d in _DIMENSIONS), _largest),
    **dict.fromkeys(
        (
            *("aten.pad", "aten.constant_pad_nd"),
            *(f"aten.{kind}_pad{d}" for kind in ("reflection", "replication") for d in _DIMENSIONS),
        ),
        _padded,
    ),
    "aten.mean": _mean,
}
