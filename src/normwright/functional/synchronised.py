"""Autograd for batch norm with the moments of several processes' batches together.

The forward is `channel_affine` with those moments. Its backward is `channel_affine`'s, which treats them as
constants, with what flows through the moments added: over the M elements of all processes, g = dz·weight,

    dx = rstd·(g - mean(g) - x̂·mean(g·x̂)) = rstd·g + x̂·a + b,   a = -rstd·weight·Σ(dz·x̂)/M,  b = …·Σdz/M

The sums are what the processes exchange; x̂·a + b + residual is `channel_affine` once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends import eager
from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.layout import channels_layout
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.functional.collectives import DifferentiableSum, Ranks, joined_sum

_affine = torch.ops.normwright.channel_affine.default
_affine_backward = torch.ops.normwright.channel_affine_backward.default


class _Operators(NamedTuple):
    """What a backward is made of: the kernels, or the same in differentiable operations."""

    affine: Callable[..., Any]
    affine_backward: Callable[..., Any]
    joined_sum: Callable[[Tensor, Ranks], Tensor]


_KERNELS = _Operators(_affine, _affine_backward, joined_sum)
_DIFFERENTIABLE = _Operators(eager.channel_affine, eager.channel_affine_backward, DifferentiableSum.apply)


# The kernels multiply x - mean by rstd·weight, here rstd²·…, which float32 has down to a rstd of 1e-19.
_LARGE_VARIANCE = 1e37


def _operators(x: Tensor, variance: Tensor) -> _Operators:
    """The kernels; for a deviation above 3e18 what does not multiply rstd by rstd, where asking is free."""
    if (
        torch.compiler.is_compiling()
        or x.device.type != "cpu"
        or not bool((variance > _LARGE_VARIANCE).any())
    ):
        return _KERNELS
    return _KERNELS._replace(affine=eager.channel_affine)


def _moments_of(x: Tensor, count: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over all processes, as differentiable functions of x on each."""
    layout = channels_layout(x)
    wide = x.to(statistics_dtype(x)).view(layout.view)
    elements = count.clamp_min(1)
    mean = DifferentiableSum.apply(wide.sum(layout.moment_axes), ranks) / elements
    centred = wide - mean.view(layout.parameter_view)
    return mean, DifferentiableSum.apply(centred.square().sum(layout.moment_axes), ranks) / elements


def _vector(given: Tensor | None, x: Tensor, otherwise: float) -> Tensor:
    """A parameter in the dtype that its gradient is to be summed in, also where there is none."""
    dtype = compute_dtype(x)
    return x.new_full((x.shape[1],), otherwise, dtype=dtype) if given is None else given.to(dtype)


def _gradients(
    operators: _Operators,
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    moments: tuple[Tensor, Tensor, Tensor],
    eps: float,
    activation: str | None,
    ranks: Ranks,
    wanted: int,
) -> tuple[Tensor | None, ...]:
    """dx over all processes' batches; dresidual, dweight and dbias of this one's own."""
    mean, variance, count = moments
    scale, shift = _vector(weight, x, 1.0), _vector(bias, x, 0.0)
    # In a half dtype the two terms of dx would each be rounded before they are added.
    wide = x.to(compute_dtype(x))
    constants = (wide, residual, scale, shift, mean, variance, eps, activation)
    dx, dresidual, dweight, dbias = operators.affine_backward(
        dy.to(wide.dtype), *constants, wanted | DWEIGHT | DBIAS
    )
    if wanted & DX:
        sums = torch.stack([dweight, dbias]).to(mean.dtype)
        means = operators.joined_sum(sums, ranks) / count.clamp_min(1)
        along, level = -means * scale * (variance + eps).rsqrt()
        vectors = (along.to(wide.dtype), level.to(wide.dtype))
        dx = operators.affine(x, dx, *vectors, mean, variance, eps, None)
    return (
        dx,
        dresidual,
        dweight.to(weight.dtype) if weight is not None and wanted & DWEIGHT else None,
        dbias.to(bias.dtype) if bias is not None and wanted & DBIAS else None,
    )


class Synchronised(torch.autograd.Function):
    """y with given moments, and the gradients of batch norm on the batches of all processes."""

    @staticmethod
    def forward(
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
        activation: str | None,
        ranks: Ranks,
    ) -> Tensor:
        """`channel_affine`."""
        y: Tensor = _affine(x, residual, weight, bias, mean, variance, eps, activation)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keeps the residual only where an activation is to be undone."""
        x, residual, weight, bias, mean, variance, count, eps, activation, ranks = inputs
        ctx.kept = eps, activation, ranks, None if residual is None else residual.dtype
        ctx.save_for_backward(x, residual if activation else None, weight, bias, mean, variance, count)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Any:
        """One collective, where a gradient of x is asked for."""
        if dy is None:
            return (None,) * 10
        to_x, to_residual, to_weight, to_bias = ctx.needs_input_grad[:4]
        eps, activation, ranks, residual_dtype = ctx.kept
        x, residual, weight, bias, mean, variance, count = ctx.saved_tensors
        activated = activation is not None
        wanted = DX * to_x + DRESIDUAL * (to_residual and activated) + DWEIGHT * to_weight + DBIAS * to_bias
        operators = _operators(x, variance)
        if not torch.compiler.is_compiling() and torch.is_grad_enabled():
            operators = _DIFFERENTIABLE
            mean, variance = _moments_of(x, count, ranks)
        moments = (mean, variance, count)
        dx, dresidual, dweight, dbias = _gradients(
            operators, dy, x, residual, weight, bias, moments, eps, activation, ranks, wanted
        )
        if to_residual:
            dresidual = (dresidual if dresidual is not None else dy).to(residual_dtype)
        return dx, dresidual, dweight, dbias, *[None] * 6
