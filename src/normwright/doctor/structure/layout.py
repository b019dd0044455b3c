"""How the values of a flow lie in memory, and what a reshape does to that and to their axes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fx import Node

from normwright.doctor.structure.operators import function_of
from normwright.network.flow import operator_of, sizes_of

_BY_AXES = {4: torch.channels_last, 5: torch.channels_last_3d}
_ORDERS_AXES = frozenset({"permute", "transpose", "t", "numpy_T", "movedim", "moveaxis", "swapaxes"})
_MAY_COPY = frozenset({"reshape", "flatten", "_unsafe_view", "contiguous", "clone", "to", "_to_copy"})


def value_of(node: Node) -> Tensor | None:
    """What a node gave in the example's call; of several values, the first."""
    value = node.meta.get("val")
    if value is None:
        first = (
            user.meta.get("val")
            for user in node.users
            if getattr(user.target, "__name__", "") == "getitem" and user.args[1] == 0
        )
        value = next(first, None)
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    return value if isinstance(value, Tensor) else None


def shape_in(node: Node) -> tuple[int, ...]:
    """Its shape, or ()."""
    value = value_of(node)
    return () if value is None else sizes_of(value)


def layout_in(node: Node) -> str:
    """How it lies in memory, as `Operation.layout` has it."""
    value = value_of(node)
    if value is None or value.layout is not torch.strided:
        return ""
    first = value.is_contiguous()
    last = value.dim() in _BY_AXES and value.is_contiguous(memory_format=_BY_AXES[value.dim()])
    if first and last:
        return ""
    if first and _is_traced_as_contiguous(node, value) and layout_in(node.args[0]) == "channels_last":  # type: ignore[arg-type]
        return "channels_last"
    return "contiguous" if first else "channels_last" if last else "strided"


def _is_traced_as_contiguous(node: Node, value: Tensor) -> bool:
    """Whether it is group norm on the CPU: PyTorch 2.14 traces it so, but it lies as its input does."""
    is_group_norm = function_of(operator_of(node)) in ("group_norm", "native_group_norm")
    return is_group_norm and value.device.type == "cpu"


def is_copied(given: Node, node: Node) -> bool:
    """Whether an operator that passes a value on wrote it into memory again, in another order."""
    before, after = value_of(given), value_of(node)
    if before is None or after is None or function_of(operator_of(node)) not in _MAY_COPY:
        return False
    if before.shape == after.shape:
        return before.stride() != after.stride()
    if before.is_contiguous():
        return False
    alike = torch.empty_strided(sizes_of(before), before.stride(), device="meta")
    try:
        alike.view(sizes_of(after))
    except RuntimeError:
        return True
    return False


def axis_after(axis: int, given: Node, node: Node) -> int | None:
    """Where an axis lies after an operator that passes a value on; None where it was mixed with others.

    Args:
        axis: of what the operator was given.
        given: that.
        node: the operator.
    """
    before, after = shape_in(given), shape_in(node)
    if not before or not after:
        return None
    if function_of(operator_of(node)) in _ORDERS_AXES:
        # as many different sizes as there are axes show where each goes
        sizes = torch.empty(tuple(range(1, len(before) + 1)), device="meta")
        ordered: Tensor = node.target(sizes, *node.args[1:], **node.kwargs)  # type: ignore[operator]
        return ordered.shape.index(axis + 1)
    if before == after:
        return axis
    outer, length = math.prod(before[:axis]), before[axis]
    found = (
        place for place, size in enumerate(after) if size == length and math.prod(after[:place]) == outer
    )
    return next(found, None)
