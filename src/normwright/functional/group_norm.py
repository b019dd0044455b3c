"""Group normalisation as a function."""

from __future__ import annotations

from torch import Tensor

from normwright.errors import ShapeError
from normwright.functional import operators
from normwright.functional.arguments import (
    check_epilogue,
    check_float,
    check_floating_point,
    check_parameter_dtypes,
    check_tensors,
    is_channel_vector,
    is_plain,
    is_whole,
    whole,
)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Normalises each group of channels of each sample by its mean and variance.

        y = activation((x - mean)/√(variance + eps)·weight + bias + residual)

    mean and the biased variance are taken over the C/num_groups channels of a group and space. One group is
    layer norm over (C, *space); C groups are instance norm.

    Args:
        input: (N, C) or (N, C, *space), floating point, any memory format.
        num_groups: divides C.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        eps: added to the variance; same unit as input².
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        out: takes the result where no gradient is wanted; may be the input itself.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: num_groups does not divide C, weight or bias is not (C,), or the whole input is one
            element per group.
        DtypeError: an input that is not floating point, parameters of another dtype, or an eps that is no
            number.
    References:
        Wu & He 2018, arXiv:1803.08494.
    Example:
        >>> group_norm(torch.tensor([[1.0, 3.0, 5.0, 9.0]]), 2, eps=0.0)
        tensor([[-1.,  1., -1.,  1.]])
    """
    plain = is_plain(input, residual, weight, bias, activation)
    if not plain or type(eps) is not float or not _has_groups(input, num_groups, weight, bias):
        check_float("group_norm", "eps", 5, eps)
        check_floating_point("GroupNormKernelImpl", input)
        check_tensors("group_norm", input, 3, weight=weight, bias=bias)
        check_epilogue(input, residual, activation)
        _check_groups(input, num_groups, weight=weight, bias=bias)
        num_groups = whole("num_groups", num_groups)
        check_parameter_dtypes(input, weight, bias)
    return operators.groups(input, residual, weight, bias, num_groups, eps, activation, out)


def _has_groups(x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether `_check_groups` has nothing to say."""
    shape = x.shape
    return (
        type(num_groups) is int
        and len(shape) > 1
        and num_groups > 0
        and shape[1] % num_groups == 0
        and is_channel_vector(weight, shape[1])
        and is_channel_vector(bias, shape[1])
        and x.numel() != num_groups
    )


def _check_groups(x: Tensor, num_groups: int, **parameters: Tensor | None) -> None:
    shape = x.shape
    if len(shape) < 2:
        raise ShapeError(f"Expected at least 2 dimensions for input tensor but received {x.dim()}")
    if not is_whole(num_groups):
        came = type(num_groups).__name__
        raise TypeError(f"group_norm(): argument 'num_groups' (position 2) must be int, not {came}")
    if num_groups <= 0:
        raise ShapeError(f"Expected num groups to be greater than 0, got {num_groups}")
    if shape[1] % num_groups:
        raise ShapeError(
            "Expected number of channels in input to be divisible by num_groups, "
            f"but got input of shape {list(shape)} and num_groups={num_groups}"
        )
    for name, parameter in parameters.items():
        if parameter is not None and parameter.shape != shape[1:2]:
            raise ShapeError(
                f"Expected {name} to be a vector of size equal to the number of channels in input, "
                f"but got {name} of shape {list(parameter.shape)} and input of shape {list(shape)}"
            )
    if num_groups and x.numel() == num_groups:
        raise ShapeError(
            f"Expected more than 1 value per channel when training, got input size {list(shape)}: a group of "
            "one element has no variance, and its output is always the bias. Use fewer groups"
        )
