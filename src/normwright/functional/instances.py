"""Normalisers whose moments are made of those of instances: of each channel of each sample, over space.

Such a normaliser is an algebra on small tensors: from the mean and variance of every instance, and its
parameters, to the centre, scale and shift of y = (x - centre)·scale + shift. This file runs any of them with
the algebra differentiated by PyTorch; `instance_parts.py` sweeps over x: once for the moments and once for y;
in the backward once for the gradients by scale and shift, and once for that by x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.activation import ACTIVATIONS
from normwright.backends.moments import compute_dtype
from normwright.functional.instance_parts import (
    Maps,
    in_any_order,
    instance_gradient,
    instance_moments,
    laid_out_like,
    map_gradients,
    mapped_instances,
)


class Mapped(NamedTuple):
    """What an algebra makes of the moments.

    Args:
        centre: (N, C), a constant to the gradient: what is taken from x first, so that nothing cancels.
        scale, shift: (N, C).
        told: what is to be known besides y, without gradients.
    """

    centre: Tensor
    scale: Tensor
    shift: Tensor
    told: tuple[Tensor, ...] = ()


def batch_norms_map(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Centre, scale and shift of (x - mean)/√(variance + eps)·weight + bias, as `Mapped` has them."""
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    centre = mean.detach()
    shift = (centre - mean) * scale  # 0, but not to the gradient
    if bias is not None:
        shift = shift + bias
    return centre, scale, shift


# (mean, variance, *parameters) -> Mapped; the moments are (N, C), float64 where the operators' are.
Algebra = Callable[..., Mapped]


def normalise_instances(
    x: Tensor, algebra: Algebra, parameters: tuple[Tensor | None, ...], activation: str | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """y = activation((x - centre)·scale + shift), with gradients of every order, and what the algebra tells.

    Args:
        x: (N, C, *space), floating point, any memory format, not empty.
        algebra: of (mean, variance, *parameters), differentiable by all of them.
        parameters: what gradients are wanted by, besides x.
        activation: as in `normwright.functional`.
    Returns:
        y of x's shape, dtype and memory format, and `Mapped.told`.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return _in_plain_operations(x, algebra, parameters, activation)
    y, *told = in_any_order(_Instances.apply, x, algebra, activation, *parameters)
    return y, tuple(told)


def _in_plain_operations(
    x: Tensor, algebra: Algebra, parameters: tuple[Tensor | None, ...], activation: str | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    wide = x.to(compute_dtype(x))
    variance, mean = torch.var_mean(wide.flatten(2), 2, correction=0)
    mapped = algebra(mean, variance, *parameters)
    shape = (*x.shape[:2], *[1] * (x.dim() - 2))
    centre, scale, shift = (part.view(shape) for part in mapped[:3])
    y = torch.addcmul(shift, wide - centre.detach(), scale)
    if activation:
        y = ACTIVATIONS[activation].value(y)
    return y.to(x.dtype), tuple(part.detach() for part in mapped.told)


class _Instances(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, algebra: Algebra, activation: str | None, *parameters: Tensor | None
    ) -> tuple[Tensor, ...]:
        moments = (part.view(x.shape[:2]) for part in instance_moments(x))
        leaves = [
            None if part is None else part.detach().requires_grad_() for part in (*moments, *parameters)
        ]
        with torch.enable_grad():
            mapped = algebra(*leaves)
        # The algebra is float64. What a float32 centre has too much is taken away again by the shift.
        exact, scale, shift = (part.detach().reshape(-1) for part in mapped[:3])
        dtype = compute_dtype(x)
        centre, narrow = exact.to(dtype), scale.to(dtype)
        maps = Maps(centre, narrow, (shift + (centre - exact) * scale).to(dtype), activation)
        told = tuple(part.detach() for part in mapped.told)
        ctx.save_for_backward(x, *parameters)
        ctx.call = (algebra, leaves, mapped, maps, (centre - exact).to(dtype))
        ctx.mark_non_differentiable(*told)
        ctx.set_materialize_grads(False)
        return mapped_instances(x, maps), *told

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Any, ...]:
        x, *parameters = ctx.saved_tensors
        algebra, leaves, mapped, maps, too_much = ctx.call
        if dy is None:
            return None, None, None, *(None for _ in parameters)
        if torch.is_grad_enabled():
            return _differentiable_backward(dy, x, algebra, maps.activation, parameters)
        dy = laid_out_like(dy, x)
        dscale, dshift = map_gradients(dy, x, maps)
        of_maps = [
            part.view(x.shape[:2]).to(of.dtype)
            for part, of in zip((dscale + dshift * too_much, dshift), mapped[1:3], strict=True)
        ]
        inputs = [leaf for leaf in leaves if leaf is not None]
        found = iter(torch.autograd.grad(mapped[1:3], inputs, of_maps, retain_graph=True, allow_unused=True))
        gradients = [None if leaf is None else next(found) for leaf in leaves]
        dmean, dvariance = (torch.zeros_like(leaves[0]) if part is None else part for part in gradients[:2])
        dx = instance_gradient(dy, x, maps, leaves[0].detach().view(-1), dmean.view(-1), dvariance.view(-1))
        return dx, None, None, *gradients[2:]


def _differentiable_backward(
    dy: Tensor, x: Tensor, algebra: Algebra, activation: str | None, parameters: list[Tensor | None]
) -> tuple[Any, ...]:
    y, _ = _in_plain_operations(x, algebra, tuple(parameters), activation)
    wanted = [part for part in (x, *parameters) if part is not None and part.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))
    dx, *rest = (
        next(found) if part is not None and part.requires_grad else None for part in (x, *parameters)
    )
    return dx, None, None, *rest
