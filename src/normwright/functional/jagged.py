"""Jagged tensors (`torch.nested`, layout `torch.jagged`): one axis has a length of each sample's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from normwright.errors import ShapeError


def of_values(
    function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, residual: Tensor | None, axes: int
) -> Tensor:
    """What a function of trailing axes makes of the values, which hold one sample behind the other.

    Args:
        function: of values and the residual's; its result has their shape.
        axes: how many trailing axes it goes over; the jagged one is not among them.
    """
    # Its length is a symbol, the others' are numbers.
    jagged = next(axis for axis, size in enumerate(x.shape) if not isinstance(size, int))
    if jagged >= x.dim() - axes:
        raise ShapeError(
            f"the axes that are normalised must come after the jagged one, which is axis {jagged}, but are "
            f"the last {axes} of {x.dim()}: take torch.nested.to_padded_tensor, or a shorter normalized_shape"
        )
    y = function(x.values(), None if residual is None else residual.values())
    offsets, lengths = x.offsets(), x.lengths()  # type: ignore[attr-defined]
    given: Tensor = torch.nested.nested_tensor_from_jagged(y, offsets, lengths, jagged)
    return given
