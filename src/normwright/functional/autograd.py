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
from torch.autograd.forward_ad import unpack_dual

from normwright.backends import eager
from normwright.backends.eager import Layout
from normwright.backends.moments import textbook_moments

_OPERATORS = torch.ops.normwright


def _wants_gradient(*tensors: Tensor | None) -> bool:
    given = [tensor for tensor in tensors if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return True
    # An operator called directly would drop a forward-mode tangent in silence; the autograd function raises.
    return not torch.compiler.is_compiling() and any(
        unpack_dual(tensor).tangent is not None for tensor in given
    )


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
    moments: Sequence[Tensor],
    activation: str | None,
    settings: tuple[Any, ...],
) -> None:
    """Keeps what the backward needs; the residual only where an activation has to be undone."""
    x, residual, weight, bias = tensors
    ctx.save_for_backward(x, residual if activation else None, weight, bias, *moments)
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
        gradients[1] = dy.to(ctx.residual_dtype)
    return tuple(gradients)


def _no_gradients(ctx: Any) -> tuple[None, ...]:
    """What a backward returns where y's gradient is undefined, as when nothing depends on y."""
    return (None,) * len(ctx.needs_input_grad)


class _Rows(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _OPERATORS.rows_forward(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, residual, weight, bias, normalized_shape, center, eps, activation = inputs
        ctx.mark_non_differentiable(*output[1:])
        _save(ctx, (x, residual, weight, bias), output[1:], activation, (normalized_shape, center, eps))

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        if dy is None:
            return _no_gradients(ctx)
        x, residual, weight, bias, mean, rstd = ctx.saved_tensors
        normalized_shape, center, eps = ctx.settings
        operator: Callable[..., Any] = _OPERATORS.rows_backward
        if _differentiable():
            operator, outer = eager.rows_backward, rstd.shape
            mean, rstd = _moments_of(x, eager.rows_layout(x, normalized_shape), eps, center=center)
            mean, rstd = mean.view(outer) if center else mean, rstd.view(outer)
        call = (dy, x, residual, weight, bias, mean, rstd, normalized_shape, center, ctx.activation)
        return *_gradients(ctx, dy, operator(*call, _output_mask(ctx))), None, None, None, None


class _Groups(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _OPERATORS.groups_forward(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, residual, weight, bias, groups, eps, activation = inputs
        ctx.mark_non_differentiable(*output[1:])
        _save(ctx, (x, residual, weight, bias), output[1:], activation, (groups, eps))

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        if dy is None:
            return _no_gradients(ctx)
        x, residual, weight, bias, mean, rstd = ctx.saved_tensors
        groups, eps = ctx.settings
        operator: Callable[..., Any] = _OPERATORS.groups_backward
        if _differentiable():
            operator, shape = eager.groups_backward, rstd.shape
            mean, rstd = _moments_of(x, eager.groups_layout(x, groups), eps)
            mean, rstd = mean.view(shape), rstd.view(shape)
        call = (dy, x, residual, weight, bias, mean, rstd, groups, ctx.activation)
        return *_gradients(ctx, dy, operator(*call, _output_mask(ctx))), None, None, None


class _Channels(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _OPERATORS.channels_forward(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, residual, weight, bias, *_, eps, activation = inputs
        ctx.mark_non_differentiable(*output[1:])
        _save(ctx, (x, residual, weight, bias), output[1:], activation, (eps,))

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        if dy is None:
            return _no_gradients(ctx)
        x, residual, weight, bias, mean, rstd = ctx.saved_tensors
        operator: Callable[..., Any] = _OPERATORS.channels_backward
        if _differentiable():
            operator = eager.channels_backward
            mean, rstd = _moments_of(x, eager.channels_layout(x), *ctx.settings)
        call = (dy, x, residual, weight, bias, mean, rstd, ctx.activation)
        return *_gradients(ctx, dy, operator(*call, _output_mask(ctx))), *[None] * 6


class _Affine(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*call: Any) -> Any:
        return _OPERATORS.channel_affine(*call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, residual, weight, bias, mean, variance, eps, activation = inputs
        _save(ctx, (x, residual, weight, bias), (mean, variance), activation, (eps,))

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Any:
        if dy is None:
            return _no_gradients(ctx)
        operator: Callable[..., Any] = _OPERATORS.channel_affine_backward
        if _differentiable():
            operator = eager.channel_affine_backward
        call = (dy, *ctx.saved_tensors, *ctx.settings, ctx.activation)
        return *_gradients(ctx, dy, operator(*call, _output_mask(ctx))), None, None, None, None


def rows(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    normalized_shape: Sequence[int],
    center: bool,
    eps: float,
    activation: str | None,
) -> Tensor:
    """`rows_forward`'s y, with its gradients."""
    call = (x, residual, weight, bias, normalized_shape, center, eps, activation)
    run = _Rows.apply if _wants_gradient(x, residual, weight, bias) else _OPERATORS.rows_forward
    y: Tensor = run(*call)[0]
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
    run = _Groups.apply if _wants_gradient(x, residual, weight, bias) else _OPERATORS.groups_forward
    y, mean, rstd = run(*call)
    return y, mean, rstd


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
    run = _Channels.apply if _wants_gradient(x, residual, weight, bias) else _OPERATORS.channels_forward
    y: Tensor = run(*call)[0]
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
) -> Tensor:
    """`channel_affine`'s y, with its gradients; mean and variance are constants."""
    call = (x, residual, weight, bias, mean, variance, eps, activation)
    run = _Affine.apply if _wants_gradient(x, residual, weight, bias) else _OPERATORS.channel_affine
    y: Tensor = run(*call)
    return y
