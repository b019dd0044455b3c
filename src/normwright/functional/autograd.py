"""Autograd for the operators.

A first derivative is one backward operator. Where a derivative is itself to be differentiated
(`create_graph=True`, `torch.func`), the backward runs in PyTorch's differentiable operations instead,
with the moments written as functions of x; derivatives of every order are then right.

Each family has a function, `rows`, `groups`, `channels`, `affine`, which calls the operator at once where
no gradient is asked for, and through its `torch.autograd.Function` otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from normwright.backends import eager
from normwright.backends.layout import Layout, channels_layout, groups_layout, rows_layout
from normwright.backends.masks import MASKED
from normwright.backends.moments import textbook_moments
from normwright.errors import OptionError, ShapeError

# The overloads themselves: looking one up costs as much as checking an argument.
_channel_affine = torch.ops.normwright.channel_affine.default
_channel_affine_backward = torch.ops.normwright.channel_affine_backward.default
_channel_affine_out = torch.ops.normwright.channel_affine_out.default
_channels_backward = torch.ops.normwright.channels_backward.default
_channels_forward = torch.ops.normwright.channels_forward.default
_groups_backward = torch.ops.normwright.groups_backward.default
_groups_forward = torch.ops.normwright.groups_forward.default
_groups_forward_out = torch.ops.normwright.groups_forward_out.default
_rows_backward = torch.ops.normwright.rows_backward.default
_rows_forward = torch.ops.normwright.rows_forward.default
_rows_forward_out = torch.ops.normwright.rows_forward_out.default


def _wants_gradient(x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> bool:
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
    ):
        return True
    # An operator called directly would drop a forward-mode tangent in silence; the autograd function raises.
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return False
    given = [tensor for tensor in (x, residual, weight, bias) if tensor is not None]
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in given)


def _differentiable() -> bool:
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _moments_of(x: Tensor, layout: Layout, eps: float, *, center: bool = True) -> tuple[Tensor, Tensor]:
    """Mean (empty when not centred) and rstd as differentiable functions of x, one-dimensional."""
    moments = textbook_moments(x.view(layout.view), layout.moment_axes, eps, center=center)
    mean = x.new_empty(0) if moments.mean is None else moments.mean.flatten()
    return mean, moments.rstd.flatten()


def _save(
    ctx: Any,
    tensors: Sequence[Tensor | None],
    mask: Tensor | None,
    moments: Sequence[Tensor],
    activation: str | None,
    settings: tuple[Any, ...],
) -> None:
    """Keeps what the backward needs; the residual only where an activation is undone without a mask."""
    x, residual, weight, bias = tensors
    kept = residual if activation and mask is None else None
    ctx.save_for_backward(x, kept, weight, bias, mask, *moments)
    ctx.residual_dtype = None if residual is None else residual.dtype
    ctx.activation = activation
    ctx.settings = settings
    ctx.set_materialize_grads(False)


def _output_mask(ctx: Any) -> list[bool]:
    dx, dresidual, dweight, dbias = ctx.needs_input_grad[:4]
    return [dx, dresidual and ctx.activation is not None, dweight, dbias]


def _gradients(ctx: Any, dy: Tensor, computed: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The four gradients of a call: without an activation the residual's is dy itself."""
    asked = ctx.needs_input_grad[:4]
    gradients = [gradient if wanted else None for gradient, wanted in zip(computed, asked, strict=True)]
    if asked[1] and ctx.activation is None:
        gradients[1] = dy
    if gradients[1] is not None:
        gradients[1] = gradients[1].to(ctx.residual_dtype)
    return tuple(gradients)


def _no_gradients(ctx: Any) -> tuple[None, ...]:
    """What a backward returns where y's gradient is undefined, as when nothing depends on y."""
    return (None,) * len(ctx.needs_input_grad)


class _Rows(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _rows_forward(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, residual, weight, bias, normalized_shape, center, eps, activation, save_mask = inputs
        ctx.mark_non_differentiable(*output[1:])
        mask = output[3] if save_mask else None
        settings = (normalized_shape, center, eps)
        _save(ctx, (x, residual, weight, bias), mask, output[1:3], activation, settings)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        if dy is None:
            return _no_gradients(ctx)
        x, residual, weight, bias, mask, mean, rstd = ctx.saved_tensors
        normalized_shape, center, eps = ctx.settings
        operator: Callable[..., Any] = _rows_backward
        if _differentiable():
            operator, outer = eager.rows_backward, rstd.shape
            mean, rstd = _moments_of(x, rows_layout(x, normalized_shape), eps, center=center)
            mean, rstd = mean.view(outer) if center else mean, rstd.view(outer)
        call = (dy, x, residual, weight, bias, mask, mean, rstd, normalized_shape, center, ctx.activation)
        return *_gradients(ctx, dy, operator(*call, _output_mask(ctx))), *[None] * 5


class _Groups(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _groups_forward(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, residual, weight, bias, groups, eps, activation, save_mask = inputs
        ctx.mark_non_differentiable(*output[1:])
        mask = output[3] if save_mask else None
        _save(ctx, (x, residual, weight, bias), mask, output[1:3], activation, (groups, eps))

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        if dy is None:
            return _no_gradients(ctx)
        x, residual, weight, bias, mask, mean, rstd = ctx.saved_tensors
        groups, eps = ctx.settings
        operator: Callable[..., Any] = _groups_backward
        if _differentiable():
            operator, shape = eager.groups_backward, rstd.shape
            mean, rstd = _moments_of(x, groups_layout(x, groups), eps)
            mean, rstd = mean.view(shape), rstd.view(shape)
        call = (dy, x, residual, weight, bias, mask, mean, rstd, groups, ctx.activation)
        return *_gradients(ctx, dy, operator(*call, _output_mask(ctx))), *[None] * 4


class _Channels(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _channels_forward(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, residual, weight, bias, *_, eps, activation, save_mask = inputs
        ctx.mark_non_differentiable(*output[1:])
        mask = output[3] if save_mask else None
        _save(ctx, (x, residual, weight, bias), mask, output[1:3], activation, (eps,))

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        if dy is None:
            return _no_gradients(ctx)
        x, residual, weight, bias, mask, mean, rstd = ctx.saved_tensors
        operator: Callable[..., Any] = _channels_backward
        if _differentiable():
            operator = eager.channels_backward
            mean, rstd = _moments_of(x, channels_layout(x), *ctx.settings)
        call = (dy, x, residual, weight, bias, mask, mean, rstd, ctx.activation)
        return *_gradients(ctx, dy, operator(*call, _output_mask(ctx))), *[None] * 7


class _Affine(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _channel_affine(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, residual, weight, bias, mean, variance, eps, activation = inputs
        _save(ctx, (x, residual, weight, bias), None, (mean, variance), activation, (eps,))

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Any:
        if dy is None:
            return _no_gradients(ctx)
        operator: Callable[..., Any] = _channel_affine_backward
        if _differentiable():
            operator = eager.channel_affine_backward
        x, residual, weight, bias, _, *moments = ctx.saved_tensors
        call = (dy, x, residual, weight, bias, *moments, *ctx.settings, ctx.activation)
        return *_gradients(ctx, dy, operator(*call, _output_mask(ctx))), None, None, None, None


def _plain(function: type[torch.autograd.Function]) -> type[torch.autograd.Function]:
    """The same function for when no transform of `torch.func` is at work: half the overhead of a call."""

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *call: Any) -> Any:
            output = function.forward(*call)
            function.setup_context(ctx, call, output)
            return output

        backward = staticmethod(function.backward)

    Plain.__name__ = Plain.__qualname__ = function.__name__
    return Plain


_PLAIN: dict[Any, Any] = {function: _plain(function) for function in (_Rows, _Groups, _Channels, _Affine)}


def _apply(function: type[torch.autograd.Function], *call: Any) -> Any:
    if not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active():
        function = _PLAIN[function]
    return function.apply(*call)


def _saves_mask(residual: Tensor | None, activation: str | None) -> bool:
    """Whether one bit per element undoes the activation, where otherwise the residual would be kept."""
    return residual is not None and activation in MASKED


def rows(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    normalized_shape: Sequence[int],
    center: bool,
    eps: float,
    activation: str | None,
    out: Tensor | None = None,
) -> Tensor:
    """`rows_forward`'s y, with its gradients."""
    call = (x, residual, weight, bias, normalized_shape, center, eps, activation)
    wanted = _wants_gradient(x, residual, weight, bias)
    if out is not None:
        return _written(out, wanted, _rows_forward_out, call)
    if wanted:
        y: Tensor = _apply(_Rows, *call, _saves_mask(residual, activation))[0]
    else:
        y = _rows_forward(*call, False)[0]
    return y


def groups(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    eps: float,
    activation: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`groups_forward`'s y, with its gradients, and its mean and rstd (N, num_groups)."""
    call = (x, residual, weight, bias, num_groups, eps, activation)
    if _wants_gradient(x, residual, weight, bias):
        y, mean, rstd, _ = _apply(_Groups, *call, _saves_mask(residual, activation))
    else:
        y, mean, rstd, _ = _groups_forward(*call, False)
    return y, mean, rstd


def groups_into(
    out: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    num_groups: int,
    eps: float,
    activation: str | None,
) -> Tensor:
    """Writes `groups_forward`'s y to out."""
    call = (x, residual, weight, bias, num_groups, eps, activation)
    return _written(out, _wants_gradient(x, residual, weight, bias), _groups_forward_out, call)


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
    running = (running_mean, running_var, num_batches_tracked)
    call = (x, residual, weight, bias, *running, momentum, eps, activation)
    if _wants_gradient(x, residual, weight, bias):
        y: Tensor = _apply(_Channels, *call, _saves_mask(residual, activation))[0]
    else:
        y = _channels_forward(*call, False)[0]
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
    call = (x, residual, weight, bias, mean, variance, eps, activation)
    wanted = _wants_gradient(x, residual, weight, bias)
    if out is not None:
        return _written(out, wanted, _channel_affine_out, call)
    y: Tensor = _apply(_Affine, *call) if wanted else _channel_affine(*call)
    return y


def _written(
    out: Tensor, wants_gradient: bool, operator: Callable[..., Any], call: tuple[Any, ...]
) -> Tensor:
    if wants_gradient or (out.requires_grad and torch.is_grad_enabled()):
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
    operator(*call, out)
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(out)  # who saved it for a backward is told
    return out
