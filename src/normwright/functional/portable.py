"""The operators by PyTorch's own functions, for programs that run where normwright is not.

ONNX has operators for these, and none for ours. In inference both compute the same, but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_exporting
from torch.nn import functional

from normwright.backends.channel_tanh import channel_tanh
from normwright.backends.moments import statistics_dtype

_ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda y: y,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def is_wanted() -> bool:
    """Whether `torch.onnx.export` is reading the network."""
    # Nearly every call ends at the first, for half a percent of its time; the second imports the exporter.
    return is_exporting() and torch.onnx.is_in_onnx_export()


def rows(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
) -> Tensor:
    """`rows_inference`, as layer norm or RMS norm."""
    shape = x.shape[x.dim() - axes :]
    if center:
        y = functional.layer_norm(x, shape, weight, bias, eps)
    else:
        wide = x if weight is None else x.to(weight.dtype)  # PyTorch's wants one dtype
        y = functional.rms_norm(wide, shape, weight, eps).to(x.dtype)
    return _finished(y, residual, activation)


def groups(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    center: bool,
    eps: float,
    activation: str | None,
) -> Tensor:
    """`groups_inference`, as group norm; without `center` in as many operations as the formula has."""
    if center:
        y = functional.group_norm(x, num_groups, weight, bias, eps)
    else:
        grouped = x.unflatten(1, (num_groups, -1)).flatten(2)
        y = functional.rms_norm(grouped, grouped.shape[2:], None, eps).reshape(x.shape)
        column = (-1, *[1] * (x.dim() - 2))
        y = y if weight is None else y * weight.view(column)
        y = (y if bias is None else y + bias.view(column)).to(x.dtype)
    return _finished(y, residual, activation)


def affine(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str | None,
) -> Tensor:
    """`channel_affine`, as batch norm in inference."""
    y = functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
    return _finished(y, residual, activation)


def _finished(y: Tensor, residual: Tensor | None, activation: str | None) -> Tensor:
    return _ACTIVATIONS[activation](y if residual is None else y + residual)


def _rows_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor]:
    y = rows(x, residual, weight, bias, axes, center, eps, activation)
    return y, _moments(x, list(range(x.dim() - axes, x.dim())), center, eps)


def _groups_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    center: bool,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor]:
    y = groups(x, residual, weight, bias, num_groups, center, eps, activation)
    return y, _moments(x.unflatten(1, (num_groups, -1)).flatten(2), [2], center, eps)


def _moments(x: Tensor, axes: list[int], center: bool, eps: float) -> Tensor:
    """Those of which a program in inference reads nothing: `eager.py` computes them to more digits."""
    wide = x.to(statistics_dtype(x))
    if not center:
        return (wide.square().mean(axes) + eps).rsqrt()[None]
    variance, mean = torch.var_mean(wide, axes, correction=0)
    return torch.stack((mean, (variance + eps).rsqrt()))


_OPERATORS = torch.ops.normwright
#: What `ExportedProgram.run_decompositions` takes, to leave none of our operators in a program of inference.
#: One that was exported with gradients enabled, as is usual, has those that return moments for a backward.
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _OPERATORS.rows_inference.default: rows,
    _OPERATORS.rows_forward.default: _rows_forward,
    _OPERATORS.groups_inference.default: groups,
    _OPERATORS.groups_forward.default: _groups_forward,
    _OPERATORS.channel_affine.default: affine,
    _OPERATORS.channel_tanh.default: channel_tanh,
}
