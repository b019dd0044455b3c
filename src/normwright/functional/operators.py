"""The operators as the functions call them: at once where no gradient is asked for, else through autograd.

Where a forward-mode derivative is asked for, which neither knows, they are called in plain PyTorch; where a
network is being written as ONNX, by PyTorch's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from normwright.backends import eager
from normwright.backends.channel_tanh import channel_tanh
from normwright.backends.checks import check_is_written
from normwright.backends.parts import parts_forward
from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.functional import portable
from normwright.functional.autograd import AFFINE, CHANNELS, GROUPS, PARTS, ROWS
from normwright.functional.forward_mode import has_tangent, primal
from normwright.functional.jagged import of_values
from normwright.functional.moving import check_several, stands_for_several
from normwright.functional.sharded import check_not_sharded, is_sharded, of_shards, replica
from normwright.functional.tanh_autograd import differentiable_tanh

# The overloads themselves: looking one up costs as much as checking an argument.
_channel_affine = torch.ops.normwright.channel_affine.default
_channel_affine_out = torch.ops.normwright.channel_affine_out.default
_channel_tanh = torch.ops.normwright.channel_tanh.default
_channels_forward = torch.ops.normwright.channels_forward.default
_groups_forward = torch.ops.normwright.groups_forward.default
_groups_inference = torch.ops.normwright.groups_inference.default
_groups_inference_out = torch.ops.normwright.groups_inference_out.default
_parts_forward = torch.ops.normwright.parts_forward.default
_rows_inference = torch.ops.normwright.rows_inference.default
_rows_inference_out = torch.ops.normwright.rows_inference_out.default


def _wants_gradient(x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
    )


def rows(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
    out: Tensor | None = None,
) -> Tensor:
    """`rows_forward`'s y, with its gradients; a jagged x has the rows of its values."""
    if type(x) is not Tensor and is_sharded(x):
        trailing = (axes, center, eps, activation)
        whole = range(x.dim() - axes, x.dim())
        return of_shards(rows, x, residual, (weight, bias), trailing, whole, out)
    if x.is_nested:
        settings = (weight, bias, axes, center, eps, activation, out)
        return of_values(lambda values, added: rows(values, added, *settings), x, residual, axes)
    wanted = _wants_gradient(x, residual, weight, bias)
    if out is not None:
        call = (x, residual, weight, bias, axes, center, eps, activation)
        return _written(out, wanted, _rows_inference_out, call)
    if portable.is_wanted():
        return portable.rows(x, residual, weight, bias, axes, center, eps, activation)
    if has_tangent(x, residual, weight, bias):
        return eager.rows_inference(x, residual, weight, bias, axes, center, eps, activation)
    if wanted:
        return ROWS.apply(x, residual, weight, bias, (axes, center, eps, activation))
    y: Tensor = _rows_inference(x, residual, weight, bias, axes, center, eps, activation)
    return y


def groups(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    eps: float,
    activation: str | None,
    out: Tensor | None = None,
    *,
    center: bool = True,
) -> Tensor:
    """`groups_forward`'s y, with its gradients; without `center` the mean is taken as 0."""
    if type(x) is not Tensor and is_sharded(x):
        own = partial(groups, center=center)
        whole = range(1, x.dim())
        return of_shards(own, x, residual, (weight, bias), (num_groups, eps, activation), whole, out)
    wanted = _wants_gradient(x, residual, weight, bias)
    if out is not None:
        call = (x, residual, weight, bias, num_groups, center, eps, activation)
        return _written(out, wanted, _groups_inference_out, call)
    if portable.is_wanted():
        return portable.groups(x, residual, weight, bias, num_groups, center, eps, activation)
    if has_tangent(x, residual, weight, bias):
        return eager.groups_inference(x, residual, weight, bias, num_groups, center, eps, activation)
    if wanted:
        return GROUPS.apply(x, residual, weight, bias, (num_groups, center, eps, activation))
    y: Tensor = _groups_inference(x, residual, weight, bias, num_groups, center, eps, activation)
    return y


def groups_with_moments(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor]:
    """`groups_forward`'s y, with its gradients, and its moments (2, N, num_groups)."""
    if type(x) is not Tensor:
        check_not_sharded("instance norm with running statistics", x)
    call = (x, residual, weight, bias, num_groups, True, eps, activation)
    if has_tangent(x, residual, weight, bias):
        y, moments = eager.groups_forward(*call)
        return y, primal(moments)
    wanted = _wants_gradient(x, residual, weight, bias)
    y, moments, *_ = GROUPS.transformable.apply(*call) if wanted else _groups_forward(*call)
    return y, moments


def channels(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
    eps: float,
    activation: str | None,
) -> Tensor:
    """`channels_forward`'s y, with its gradients; moves the running statistics."""
    if type(x) is not Tensor and is_sharded(x):
        statistics = [replica(each, x) for each in (running_mean, running_var, num_batches_tracked)]
        moving = (*statistics, momentum, eps, activation)
        return of_shards(channels, x, residual, (weight, bias), moving, range(x.dim()))
    settings = (running_mean, running_var, num_batches_tracked, momentum, eps, activation)
    if torch._C._are_functorch_transforms_active() and stands_for_several(x, residual, weight, bias):
        if stands_for_several(x):
            check_several(running_mean, running_var, num_batches_tracked)
        return eager.channels_forward(x, residual, weight, bias, *settings)[0]
    if has_tangent(x, residual, weight, bias):
        if running_mean is not None or num_batches_tracked is not None:
            _channels_forward(primal(x), None, None, None, *settings)
        unmoved = (None, None, None, None, eps, activation)
        return eager.channels_forward(x, residual, weight, bias, *unmoved)[0]
    if _wants_gradient(x, residual, weight, bias):
        return CHANNELS.apply(x, residual, weight, bias, settings)
    y: Tensor = _channels_forward(x, residual, weight, bias, *settings)[0]
    return y


def affine(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    activation: str | None,
    out: Tensor | None = None,
) -> Tensor:
    """`channel_affine`'s y, with its gradients; mean and variance are constants."""
    if type(x) is not Tensor and is_sharded(x):
        known = (replica(mean, x), replica(variance, x), eps, activation)
        return of_shards(affine, x, residual, (weight, bias), known, (1,), out)
    wanted = _wants_gradient(x, residual, weight, bias)
    if out is not None:
        call = (x, residual, weight, bias, mean, variance, eps, activation)
        return _written(out, wanted, _channel_affine_out, call)
    if portable.is_wanted():
        return portable.affine(x, residual, weight, bias, mean, variance, eps, activation)
    if has_tangent(x, residual, weight, bias):
        return eager.channel_affine(x, residual, weight, bias, mean, variance, eps, activation)
    if wanted:
        return AFFINE.apply(x, residual, weight, bias, (mean, variance, eps, activation))
    y: Tensor = _channel_affine(x, residual, weight, bias, mean, variance, eps, activation)
    return y


def parts(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    spans: Tensor,
    count: int,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor]:
    """`parts_forward`'s y, with its gradients, and the moments (3, count, C) of so many parts."""
    if type(x) is not Tensor:
        check_not_sharded("ghost, split and masked batch norm", x)
    call = (x, residual, weight, bias, spans, count, eps, activation)
    if has_tangent(x, residual, weight, bias):
        y, moments = parts_forward(*call)
        return y, primal(moments)
    wanted = _wants_gradient(x, residual, weight, bias)
    y, moments = PARTS.transformable.apply(*call) if wanted else _parts_forward(*call)
    return y, moments


def tanh(x: Tensor, alpha: Tensor, weight: Tensor | None, bias: Tensor | None, axis: int) -> Tensor:
    """`channel_tanh`'s y, with its gradients; a jagged x has the channels of its values."""
    if type(x) is not Tensor and is_sharded(x):
        return of_shards(
            lambda own, _, *others: tanh(own, *others), x, None, (alpha, weight, bias), (axis,), (axis,)
        )
    if x.is_nested:
        channels_on = x.dim() - axis
        return of_values(lambda own, _: tanh(own, alpha, weight, bias, axis - 1), x, None, channels_on)
    if portable.is_wanted() or has_tangent(x, alpha, weight, bias):
        return channel_tanh(x, alpha, weight, bias, axis)
    if _wants_gradient(x, alpha, weight, bias):
        return differentiable_tanh(x, alpha, weight, bias, axis)
    y: Tensor = _channel_tanh(x, alpha, weight, bias, axis)
    return y


def _written(
    out: Tensor, wants_gradient: bool, operator: Callable[..., Any], call: tuple[Any, ...]
) -> Tensor:
    if not isinstance(out, Tensor):
        raise DtypeError(
            f"out must be a tensor like the input, but is {type(out).__name__}: use torch.empty_like"
        )
    if wants_gradient or has_tangent(*call[:4]) or (out.requires_grad and torch.is_grad_enabled()):
        raise OptionError(
            "out= must be given only where no gradient is wanted, since it may take the input's place: "
            "use torch.no_grad() or leave out= away"
        )
    x = call[0]
    if out.shape != x.shape or out.dtype != x.dtype or out.device != x.device:
        raise ShapeError(
            f"out must be like the input, {x.dtype} of shape {list(x.shape)} on {x.device}, but is "
            f"{out.dtype} of shape {list(out.shape)} on {out.device}"
        )
    traced = torch.compiler.is_compiling()  # which the operator's fake checks, and knows how to sort
    if not traced:
        check_is_written("out", out)
    operator(*call, out)
    if not traced:
        torch.autograd.graph.increment_version(out)  # who saved it for a backward is told
    return out
