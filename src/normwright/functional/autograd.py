"""Autograd for the operators.

A first derivative is one backward operator. Where a derivative is itself to be differentiated
(`create_graph=True`, `torch.func`), the backward runs in PyTorch's differentiable operations instead,
with the moments written as functions of x; derivatives of every order are then right.

A family (`_Rows`, …) says what its backward keeps and how it is called. Of each, two
`torch.autograd.Function`s are made: one that the transforms of `torch.func` and the compiler understand, and
one that costs a third of it, for every other call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends import eager
from normwright.backends.layout import Layout, channels_layout, groups_layout, rows_layout
from normwright.backends.moments import textbook_moments

# The overloads themselves: looking one up costs as much as checking an argument.
_channel_affine_backward = torch.ops.normwright.channel_affine_backward.default
_channels_backward = torch.ops.normwright.channels_backward.default
_groups_backward = torch.ops.normwright.groups_backward.default
_rows_backward = torch.ops.normwright.rows_backward.default


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
    dx, dresidual, dweight, dbias = computed
    wants = ctx.needs_input_grad
    return (
        dx if wants[0] else None,
        (dresidual if ctx.activation else dy).to(ctx.residual_dtype) if wants[1] else None,
        dweight if wants[2] else None,
        dbias if wants[3] else None,
    )


# Of a call whose y has no gradient, as when nothing depends on y.
_NO_GRADIENTS = (None, None, None, None)


class _Rows:
    """Moments over the trailing axes."""

    forward = torch.ops.normwright.rows_forward.default
    settings = 5

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, residual, weight, bias, normalized_shape, center, eps, activation, save_mask = inputs
        mask = output[3] if save_mask else None
        settings = (normalized_shape, center, eps)
        _save(ctx, (x, residual, weight, bias), mask, output[1:3], activation, settings)

    @staticmethod
    def gradients(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return _NO_GRADIENTS
        x, residual, weight, bias, mask, mean, rstd = ctx.saved_tensors
        normalized_shape, center, eps = ctx.settings
        operator: Callable[..., Any] = _rows_backward
        if _differentiable():
            operator, outer = eager.rows_backward, rstd.shape
            mean, rstd = _moments_of(x, rows_layout(x, normalized_shape), eps, center=center)
            mean, rstd = mean.view(outer) if center else mean, rstd.view(outer)
        call = (dy, x, residual, weight, bias, mask, mean, rstd, normalized_shape, center, ctx.activation)
        return _gradients(ctx, dy, operator(*call, _output_mask(ctx)))


class _Groups:
    """Moments over a group of channels and space."""

    forward = torch.ops.normwright.groups_forward.default
    settings = 4

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, residual, weight, bias, groups, eps, activation, save_mask = inputs
        mask = output[3] if save_mask else None
        _save(ctx, (x, residual, weight, bias), mask, output[1:3], activation, (groups, eps))

    @staticmethod
    def gradients(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return _NO_GRADIENTS
        x, residual, weight, bias, mask, mean, rstd = ctx.saved_tensors
        groups, eps = ctx.settings
        operator: Callable[..., Any] = _groups_backward
        if _differentiable():
            operator, shape = eager.groups_backward, rstd.shape
            mean, rstd = _moments_of(x, groups_layout(x, groups), eps)
            mean, rstd = mean.view(shape), rstd.view(shape)
        call = (dy, x, residual, weight, bias, mask, mean, rstd, groups, ctx.activation)
        return _gradients(ctx, dy, operator(*call, _output_mask(ctx)))


class _Channels:
    """Moments over all but the channel axis."""

    forward = torch.ops.normwright.channels_forward.default
    settings = 7

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, residual, weight, bias, *_, eps, activation, save_mask = inputs
        mask = output[3] if save_mask else None
        _save(ctx, (x, residual, weight, bias), mask, output[1:3], activation, (eps,))

    @staticmethod
    def gradients(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return _NO_GRADIENTS
        x, residual, weight, bias, mask, mean, rstd = ctx.saved_tensors
        operator: Callable[..., Any] = _channels_backward
        if _differentiable():
            operator = eager.channels_backward
            mean, rstd = _moments_of(x, channels_layout(x), *ctx.settings)
        call = (dy, x, residual, weight, bias, mask, mean, rstd, ctx.activation)
        return _gradients(ctx, dy, operator(*call, _output_mask(ctx)))


class _Affine:
    """Known moments."""

    forward = torch.ops.normwright.channel_affine.default
    settings = 4

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, residual, weight, bias, mean, variance, eps, activation = inputs
        _save(ctx, (x, residual, weight, bias), None, (mean, variance), activation, (eps,))

    @staticmethod
    def gradients(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return _NO_GRADIENTS
        operator: Callable[..., Any] = _channel_affine_backward
        if _differentiable():
            operator = eager.channel_affine_backward
        x, residual, weight, bias, _, *moments = ctx.saved_tensors
        call = (dy, x, residual, weight, bias, *moments, *ctx.settings, ctx.activation)
        return _gradients(ctx, dy, operator(*call, _output_mask(ctx)))


def _transformable(family: Any) -> Any:
    """Takes and returns everything flat, as the transforms of `torch.func` want it."""

    class Transformable(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*call: Any) -> Any:
            return family.forward(*call)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                ctx.mark_non_differentiable(*output[1:])
            family.keep(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
            return *family.gradients(ctx, dy), *[None] * family.settings

    return Transformable


def _plain(family: Any) -> Any:
    """Returns y alone and takes what is not differentiated as one argument: each costs."""

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *call: Any) -> Any:
            *inputs, settings = call
            flat = (*inputs, *settings)
            output = family.forward(*flat)
            family.keep(ctx, flat, output)
            return output if isinstance(output, Tensor) else output[0]

        @staticmethod
        def backward(ctx: Any, dy: Tensor | None) -> Any:
            return *family.gradients(ctx, dy), None

    return Plain


class Differentiable(NamedTuple):
    """The two functions of a family."""

    transformable: Any
    plain: Any

    def apply(
        self,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        settings: tuple[Any, ...],
    ) -> Tensor:
        """y; settings are what the forward operator takes besides."""
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            output = self.transformable.apply(x, residual, weight, bias, *settings)
        else:
            output = self.plain.apply(x, residual, weight, bias, settings)
        y: Tensor = output if isinstance(output, Tensor) else output[0]
        return y


ROWS, GROUPS, CHANNELS, AFFINE = (
    Differentiable(_transformable(family), _plain(family)) for family in (_Rows, _Groups, _Channels, _Affine)
)
