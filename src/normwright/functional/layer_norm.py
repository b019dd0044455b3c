"""Layer normalisation as a function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normwright.functional import operators
from normwright.functional.arguments import (
    check_epilogue,
    check_float,
    check_floating_point,
    check_normalized_shape,
    check_parameter_dtypes,
    check_tensors,
    is_plain,
    is_trailing_shape,
)
from normwright.functional.left_to_torch import check_alone, is_nested_strided


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Normalises the trailing axes of each sample by their mean and variance.

        y = activation((x - mean)/√(variance + eps)·weight + bias + residual)

    A nested tensor may be jagged; one that is strided is left to PyTorch's own function.

    mean and the biased variance are taken over the axes that normalized_shape names.

    Args:
        input: (*, *normalized_shape), floating point, any memory format.
        normalized_shape: the lengths of the trailing axes.
        weight: normalized_shape, or None for 1; input's dtype, or float32 with a half-precision input.
        bias: normalized_shape, or None for 0.
        eps: added to the variance; same unit as input².
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        out: takes the result where no gradient is wanted; may be the input itself.
    Returns:
        input's shape and dtype; contiguous, as PyTorch's.
    Raises:
        ShapeError: normalized_shape is empty or not the input's trailing shape, or a parameter has another.
        DtypeError: an input that is not floating point, parameters of another dtype, or an eps that is
            no number.
    References:
        Ba, Kiros & Hinton 2016, arXiv:1607.06450.
    Example:
        >>> layer_norm(torch.tensor([[1.0, 3.0]]), (2,), eps=0.0)
        tensor([[-1.,  1.]])
    """
    if is_nested_strided(input):
        check_alone("a nested tensor that is strided", residual=residual, activation=activation, out=out)
        return torch.nn.functional.layer_norm(input, normalized_shape, weight, bias, eps)
    plain = is_plain(input, residual, weight, bias, activation)
    if not plain or type(eps) is not float or not is_trailing_shape(input, normalized_shape, weight, bias):
        check_float("layer_norm", "eps", 5, eps)
        check_floating_point("LayerNormKernelImpl", input)
        check_tensors("layer_norm", input, 3, weight=weight, bias=bias)
        check_epilogue(input, residual, activation)
        check_normalized_shape("layer_norm", input, normalized_shape, weight, bias)
        check_parameter_dtypes(input, weight, bias)
    # What mostly follows, a linear layer over the last axis, is made for it: where the output kept a permuted
    # input's order a block of ConvNeXt took 1.05 to 1.15 of its time, and the kernel twice.
    input = input.contiguous()  # noqa: A001  # PyTorch's name
    return operators.rows(input, residual, weight, bias, len(normalized_shape), True, eps, activation, out)
