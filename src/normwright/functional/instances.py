"""Normalisers whose moments are made of those of instances: of each channel of each sample, over space.

Such a normaliser is an algebra on small tensors: from the mean and variance of every instance, and its
parameters, to the centre, scale and shift of y = (x - centre)·scale + shift. This file runs any of them in
few passes over x: one for the moments and one for y; in the backward one for the gradients by scale and
shift, and two for that by x, with the algebra differentiated by PyTorch in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.activation import ACTIVATIONS
from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype

_channel_affine = torch.ops.normwright.channel_affine.default
_channel_affine_backward = torch.ops.normwright.channel_affine_backward.default
_channel_affine_out = torch.ops.normwright.channel_affine_out.default
_channel_moments = torch.ops.normwright.channel_moments.default


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
    y, *told = _Instances.apply(x.contiguous(), algebra, activation, *parameters)
    if not x.is_contiguous():
        y = _laid_out_like(y, x)
    return y, tuple(told)


def _laid_out_like(y: Tensor, x: Tensor) -> Tensor:
    """y with its channels innermost, if x has them so."""
    last = x.movedim(1, -1)
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if last.is_contiguous() else y


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
        flat, shape = _flat(x), x.shape[:2]
        count, mean, m2 = _channel_moments(flat)
        moments = (part.view(shape) for part in (mean, m2 / count))
        leaves = [
            None if part is None else part.detach().requires_grad_() for part in (*moments, *parameters)
        ]
        with torch.enable_grad():
            mapped = algebra(*leaves)
        # The algebra is float64. What a float32 centre has too much is taken away again by the shift.
        exact, *maps = (part.detach().reshape(-1) for part in mapped[:3])
        centre, scale = (part.to(compute_dtype(x)) for part in (exact, maps[0]))
        shift = (maps[1] + (centre - exact) * maps[0]).to(centre.dtype)
        y: Tensor = _channel_affine(flat, None, scale, shift, centre, torch.ones_like(scale), 0.0, activation)
        told = tuple(part.detach() for part in mapped.told)
        ctx.save_for_backward(x, *parameters)
        ctx.call = (
            algebra,
            activation,
            leaves,
            mapped,
            (scale, shift, centre),
            (centre - exact).to(scale.dtype),
        )
        ctx.mark_non_differentiable(*told)
        ctx.set_materialize_grads(False)
        return y.view(x.shape), *told

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Any, ...]:
        x, *parameters = ctx.saved_tensors
        algebra, activation, leaves, mapped, vectors, too_much = ctx.call
        if dy is None:
            return None, None, None, *(None for _ in parameters)
        if torch.is_grad_enabled():
            return _differentiable_backward(dy, x, algebra, activation, parameters)
        ones = torch.ones_like(vectors[0])
        # Half types are widened: their gradient is a sum of two parts, and rounded once.
        flat, flat_dy = (_flat(part.contiguous()).to(ones.dtype) for part in (x, dy))
        known = (*vectors, ones, 0.0, activation)
        wanted = DWEIGHT | DBIAS if activation is None else DX | DWEIGHT | DBIAS
        dx, _, dscale, dshift = _channel_affine_backward(flat_dy, flat, None, *known, wanted)
        if activation is None:  # which this is quicker for
            dx = _channel_affine(flat_dy, None, vectors[0], None, 0 * ones, ones, 0.0, None)
        inputs = [leaf for leaf in leaves if leaf is not None]
        of_maps = [
            part.view(x.shape[:2]).to(of.dtype)
            for part, of in zip((dscale + dshift * too_much, dshift), mapped[1:3], strict=True)
        ]
        found = iter(torch.autograd.grad(mapped[1:3], inputs, of_maps, retain_graph=True, allow_unused=True))
        gradients = [None if leaf is None else next(found) for leaf in leaves]
        dmean, dvariance = (torch.zeros_like(leaves[0]) if part is None else part for part in gradients[:2])
        size = flat.shape[2]
        exact = leaves[0].detach().view(-1)
        slope, mean = (part.to(ones.dtype) for part in ((dvariance * (2 / size)).view(-1), exact))
        level = ((dmean / size).view(-1) + (mean - exact) * slope).to(ones.dtype)
        # In the memory of its own residual: fresh pages cost as much as the arithmetic.
        _channel_affine_out(flat, dx, slope, level, mean, ones, 0.0, None, dx)
        return dx.to(x.dtype).view(x.shape), None, None, *gradients[2:]


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


def _flat(x: Tensor) -> Tensor:
    """x as one sample with a channel for each instance."""
    return x.view(1, x.shape[0] * x.shape[1], -1)
