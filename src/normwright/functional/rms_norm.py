"""Root-mean-square normalisation as a function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.backends.moments import compute_dtype
from normwright.errors import ShapeError
from normwright.functional import operators
from normwright.functional.arguments import (
    check_epilogue,
    check_float,
    check_floating_point,
    check_normalized_shape,
    check_tensors,
    is_plain,
    is_trailing_shape,
)
from normwright.functional.left_to_torch import check_alone, is_nested_strided


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Normalises the trailing axes of each sample by their root mean square.

        y = activation(x/√(mean(x²) + eps)·weight + residual)

    A complex input is left to PyTorch's own function, which takes the mean of x² there too, and not of |x|².

    Args:
        input: (*, *normalized_shape), floating point or complex, any memory format.
        normalized_shape: the lengths of the trailing axes.
        weight: normalized_shape, or None for 1.
        eps: added to the mean square; same unit as input². None takes the machine epsilon of the arithmetic,
            which is float32's for half-precision inputs.
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        out: takes the result where no gradient is wanted; may be the input itself.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: normalized_shape is empty or not the input's trailing shape, or weight has another.
        DtypeError: an input that is not floating point or complex, or an eps that is no number.
        OptionError: a complex input came with residual, activation or out.
    References:
        Zhang & Sennrich 2019, arXiv:1910.07467.
    Example:
        >>> rms_norm(torch.tensor([[3.0, 4.0]]), (2,), eps=0.0).square().mean()
        tensor(1.)
    """
    if is_nested_strided(input):
        raise ShapeError(
            "a nested tensor must be jagged to be normalised by its root mean square, but is strided: make "
            "it by torch.nested.nested_tensor(..., layout=torch.jagged)"
        )
    if isinstance(input, Tensor) and input.is_complex():
        check_alone("a complex input", residual=residual, activation=activation, out=out)
        return torch.nn.functional.rms_norm(input, normalized_shape, weight, eps)
    plain = is_plain(input, residual, weight, None, activation)
    if (
        not plain
        or (eps is not None and type(eps) is not float)
        or not is_trailing_shape(input, normalized_shape, weight)
    ):
        if eps is not None:
            check_float("rms_norm", "eps", 4, eps)
        check_floating_point("rms_norm", input)
        check_tensors("rms_norm", input, 3, weight=weight)
        check_epilogue(input, residual, activation)
        check_normalized_shape("rms_norm", input, normalized_shape, weight)
    if eps is None:
        eps = torch.finfo(compute_dtype(input)).eps
    return operators.rows(input, residual, weight, None, len(normalized_shape), False, eps, activation, out)
