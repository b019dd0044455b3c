"""Weight normalisation and weight standardisation as functions of a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.moments import compute_dtype
from normwright.errors import OptionError, ShapeError
from normwright.functional.arguments import check_floating_point, is_number, whole
from normwright.functional.layer_norm import layer_norm


def weight_norm(v: Tensor, g: Tensor, dim: int | None = 0) -> Tensor:
    """Gives a weight the length g and the direction v.

        w = g·v/‖v‖

    The norm is taken in float32 or wider, over all axes but `dim`; w of a v that is 0 is 0.

    Args:
        v: the direction, floating point, any shape.
        g: the length, of a shape that broadcasts against v: 1 on every axis but `dim`.
        dim: the axis of the outputs, 0 in a linear layer or a convolution; None or -1 for one length in all.
    Returns:
        v's shape and dtype.
    Raises:
        OptionError: v has no such axis.
        DtypeError: v is not floating point.
    References:
        Salimans & Kingma 2016, arXiv:1602.07868.
    Example:
        >>> weight_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0]]))
        tensor([[6., 8.]])
    """
    check_floating_point("weight_norm", v)
    dtype = compute_dtype(v)
    norm = length(v, dim).clamp_min(torch.finfo(dtype).tiny)
    return (v * (g.to(dtype) / norm)).to(v.dtype)


def length(v: Tensor, dim: int | None = 0) -> Tensor:
    """‖v‖ over all axes but `dim`, which stay at length 1, or of all of v as a scalar; float32 or wider."""
    axes = other_axes(v, dim)
    wide = v.to(compute_dtype(v))
    if not axes:
        return wide.abs()
    whole = len(axes) == v.dim()
    norm: Tensor = torch.linalg.vector_norm(wide, 2, None if whole else axes, keepdim=not whole)
    return norm


def other_axes(v: Tensor, dim: int | None) -> list[int]:
    """The axes of a weight but `dim`; all of them for None or -1, as PyTorch has it."""
    if dim is not None:
        dim = whole("dim", dim)
    if dim is None or dim == -1:
        return list(range(v.dim()))
    if not 0 <= dim < v.dim():
        raise OptionError(
            f"dim must be one of the {v.dim()} axes of the weight {list(v.shape)}, or None for all, but is "
            f"{dim}"
        )
    return [axis for axis in range(v.dim()) if axis != dim]


def check_eps(eps: float) -> None:
    """The eps of a standardised weight, which is added to its variance, is above 0."""
    if not is_number(eps) or not eps > 0:
        raise OptionError(f"eps must be above 0, so that a constant weight is allowed, but is {eps!r}")


def standardise_weight(weight: Tensor, eps: float = 1e-5, *, dim: int = 0) -> Tensor:
    """Standardises the weights of each output over its inputs.

        w = (v - mean(v))/√(variance(v) + eps)

    over all axes but `dim`, with the biased variance.

    Args:
        weight: floating point, two axes or more.
        eps: added to the variance; same unit as weight².
        dim: the axis of the outputs, 0 in a linear layer or a convolution, 1 in a transposed convolution.
    Returns:
        weight's shape and dtype.
    Raises:
        ShapeError: an output with a single input, whose standardised weight would always be 0.
        OptionError: the weight has no such axis, or eps not above 0.
        DtypeError: a weight that is not floating point.
    References:
        Qiao et al. 2019, arXiv:1903.10520, equation 6.
    Example:
        >>> standardise_weight(torch.tensor([[1.0, 3.0]]), eps=1e-12)
        tensor([[-1.,  1.]])
    """
    check_floating_point("standardise_weight", weight)
    check_eps(eps)
    if not other_axes(weight, dim) or dim in (None, -1):
        raise OptionError(f"dim must be an axis of a weight of two or more, but is {dim} of {weight.dim()}")
    rows = weight.movedim(dim, 0)
    inputs = rows[0].numel() if len(rows) else 0
    if inputs == 1:
        raise ShapeError(
            f"every output must have more than one input, but the weight is {list(weight.shape)}: over one "
            "input it would always be 0. Leave this layer out (as a depthwise 1×1 convolution)"
        )
    standardised = layer_norm(rows.reshape(len(rows), inputs), (inputs,), eps=eps)
    return standardised.view(rows.shape).movedim(0, dim)
