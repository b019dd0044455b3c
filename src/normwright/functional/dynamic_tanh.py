"""Dynamic tanh, what may stand where a normaliser stood, as a function."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.moments import compute_dtype
from normwright.errors import ShapeError
from normwright.functional import operators
from normwright.functional.arguments import check_floating_point, check_parameter_dtypes


def dynamic_tanh(
    input: Tensor,
    alpha: Tensor | float = 0.5,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
) -> Tensor:
    """Squashes each element, without any moment.

        y = tanh(alpha·x)·weight + bias

    Args:
        input: floating point, any shape and memory format.
        alpha: a scalar, which is learned.
        weight: one per channel, (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        axis: that of the channels: the last one, as layer norm has it in a transformer, or 1 for images.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: no such axis, or weight or bias is not (C,).
        DtypeError: an input that is not floating point, or parameters of another dtype.
    References:
        Zhu et al. 2025, arXiv:2503.10622.
    Example:
        >>> dynamic_tanh(torch.tensor([-100.0, 0.0, 100.0]))
        tensor([-1.,  0.,  1.])
    """
    check_floating_point("dynamic_tanh", input)
    if not -input.dim() <= axis < input.dim():
        raise ShapeError(f"axis must be one of the {input.dim()} axes of the input, but is {axis}")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != input.shape[axis : axis + 1 or None]:
            raise ShapeError(
                f"{name} must be ({input.shape[axis]},), one per channel (axis {axis} of an input "
                f"{list(input.shape)}), but has shape {list(vector.shape)}"
            )
    check_parameter_dtypes(input, weight, bias)
    channels, last = input.shape[axis], input.movedim(axis, -1)
    as_it_is = axis % input.dim() == 1
    seen = input if as_it_is else last.reshape(-1, channels)
    zeros = torch.zeros(channels, dtype=compute_dtype(input), device=input.device)
    known = (zeros, torch.ones_like(zeros), 0.0)
    slope = alpha if isinstance(alpha, Tensor) else zeros.new_tensor(alpha)
    y = operators.affine(seen, None, slope.to(zeros.dtype).expand(channels), None, *known, "tanh")
    if weight is not None or bias is not None:
        y = operators.affine(y, None, weight, bias, *known, None)
    return y if as_it_is else y.view(last.shape).movedim(-1, axis)
