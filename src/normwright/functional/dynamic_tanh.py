"""Dynamic tanh, what may stand where a normaliser stood, as a function."""

from __future__ import annotations

from torch import Tensor

from normwright.backends.moments import compute_dtype
from normwright.errors import DtypeError, ShapeError
from normwright.functional import operators
from normwright.functional.arguments import (
    check_floating_point,
    check_parameter_dtypes,
    check_scalar,
    check_tensors,
    is_number,
    whole,
)


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
        input: floating point, any shape and memory format; jagged too, with the channels after that axis.
        alpha: a scalar, which is learned.
        weight: one per channel, (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        axis: that of the channels: the last one, as layer norm has it in a transformer, or 1 for images.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: no such axis, alpha is not a scalar, or weight or bias is not (C,).
        OptionError: an axis that is not whole.
        DtypeError: an input or alpha that is not floating point, or parameters of another dtype.
    References:
        Zhu et al. 2025, arXiv:2503.10622.
    Example:
        >>> dynamic_tanh(torch.tensor([-100.0, 0.0, 100.0]))
        tensor([-1.,  0.,  1.])
    """
    check_floating_point("dynamic_tanh", input)
    check_tensors("dynamic_tanh", input, 3, weight=weight, bias=bias)
    axis = whole("axis", axis)
    if not -input.dim() <= axis < input.dim():
        raise ShapeError(f"axis must be one of the {input.dim()} axes of the input, but is {axis}")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and vector.shape != input.shape[axis : axis + 1 or None]:
            raise ShapeError(
                f"{name} must be ({input.shape[axis]},), one per channel (axis {axis} of an input "
                f"{list(input.shape)}), but has shape {list(vector.shape)}"
            )
    check_parameter_dtypes(input, weight, bias)
    if not isinstance(alpha, Tensor):
        if not is_number(alpha):
            raise DtypeError(f"alpha must be a real number or a floating point scalar, but is {alpha!r}")
        alpha = input.new_tensor(alpha, dtype=compute_dtype(input))
    check_scalar("alpha", alpha)
    scalar = alpha.reshape(()) if alpha.dim() else alpha
    return operators.tanh(input, scalar, weight, bias, axis % input.dim())
