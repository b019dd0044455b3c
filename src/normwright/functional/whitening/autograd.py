"""Autograd for whitening.

A first derivative goes over the data piece by piece (`passes`). Where a derivative is itself to be
differentiated, and under the compiler and the transforms of `torch.func`, whitening is written in plain
differentiable operations, whose matrix root has a derivative of its own (`inverse_root`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.backends.normalised import is_batched
from normwright.functional.autocasting import without_autocast
from normwright.functional.differentiable_gradients import differentiable_gradients
from normwright.functional.forward_mode import needs_plain_operations
from normwright.functional.whitening import passes
from normwright.functional.whitening.inverse_root import projection_of

_channel_moments = torch.ops.normwright.channel_moments.default


class Rule(NamedTuple):
    """How a covariance becomes a projection."""

    group_size: int
    eps: float
    method: str
    iterations: int

    def projection(self, covariance: Tensor) -> Tensor:
        """(G, d, d), differentiable to any order."""
        return projection_of(covariance, self.eps, self.method, self.iterations)


class Whitened(NamedTuple):
    """What whitening computes; mean (C,), covariance (biased) and projection (G, d, d) have no gradient."""

    y: Tensor
    mean: Tensor
    covariance: Tensor
    projection: Tensor


def whiten(x: Tensor, weight: Tensor | None, bias: Tensor | None, rule: Rule) -> Whitened:
    """Whitens by x's own moments, with its gradients."""
    if needs_plain_operations(x, weight, bias):
        y, *moments = _plainly(x, weight, bias, rule)
        return Whitened(y, *(moment.detach() for moment in moments))
    return Whitened(*_Whitening.apply(x, weight, bias, rule))


def moments(x: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """x's mean (C,) and biased covariance (G, d, d), without gradient."""
    mean, covariance, _ = _moments(x.detach(), group_size)
    return mean, covariance


def project(
    x: Tensor, mean: Tensor, projection: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Projects by moments that are constants, with its gradients."""
    wide = statistics_dtype(x)
    matrix = _weighted(projection.to(wide), weight)
    tensors = [tensor for tensor in (x, weight, bias) if tensor is not None]
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if wants_gradient or needs_plain_operations(*tensors):
        return _applied(_centred(x, mean.to(wide)), matrix, bias, x)
    return passes.project(x, passes.Centring.about(mean.to(wide), None, x), matrix, bias)


def _moments(x: Tensor, group_size: int) -> tuple[Tensor, Tensor, passes.Centring]:
    count, mean, m2 = _channel_moments(x)
    centring = passes.Centring.about(mean, (m2 / count).sqrt(), x)
    return mean, passes.covariance(x, centring, x.shape[1] // group_size), centring


class _Whitening(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, rule: Rule) -> Any:
        mean, covariance, centring = _moments(x, rule.group_size)
        leaf = covariance.detach().requires_grad_(ctx.needs_input_grad[0])
        with torch.enable_grad():  # of small matrices: the backward goes on from there
            root = rule.projection(leaf)
        projection, ctx.root = root.detach(), (root, leaf)
        y = passes.project(x, centring, _weighted(projection, weight), bias)
        ctx.rule, ctx.bias_dtype = rule, None if bias is None else bias.dtype
        ctx.save_for_backward(x, weight, bias, projection, *centring)
        ctx.mark_non_differentiable(mean, covariance, projection)
        ctx.set_materialize_grads(False)
        return y, mean, covariance, projection

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
        if dy is None:
            return None, None, None, None
        with without_autocast(dy.device):
            if torch.is_grad_enabled() or is_batched(dy):
                inputs, wanted = ctx.saved_tensors[:3], ctx.needs_input_grad[:3]
                plain = partial(_plainly, rule=ctx.rule)
                return *differentiable_gradients(plain, inputs, wanted, (dy,)), None
            return *_gradients(ctx, dy), None


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """dx = P·(g − mean(g)) + 2/m·dΣ·(x − mean), and the sums: `reference/whitening.py`."""
    x, weight, _, projection, *centring = ctx.saved_tensors
    to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
    groups, size, count = len(projection), projection.shape[1], x.numel() // x.shape[1]
    centring = passes.Centring(*centring)
    along, sums = passes.products(dy, x, centring, groups)
    dx = None
    if to_x:
        of_projection = along
        if weight is not None:
            of_projection = along * weight.to(along.dtype).view(groups, size, 1)
        root, leaf = ctx.root
        (of_covariance,) = torch.autograd.grad(root, [leaf], of_projection, retain_graph=True)
        of_dy = _weighted(projection, weight).mT
        of_x = (of_covariance + of_covariance.mT) / count
        dx = passes.combine(dy, of_dy, x, centring, of_x, -(of_dy @ sums) / count)
    dweight = (along * projection).sum(-1).view(-1).to(weight.dtype) if to_weight else None
    return dx, dweight, sums.view(-1).to(ctx.bias_dtype) if to_bias else None


def _plainly(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean, covariance and projection as differentiable functions of x."""
    wide, groups = statistics_dtype(x), x.shape[1] // rule.group_size
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = x.mean(axes, dtype=wide)
    z = _centred(x, mean)
    with torch.no_grad():  # of squares that would overflow
        scale = passes.power_of_two(z.abs().amax(axes)).to(z.dtype)
    columns = (z / scale.view(1, -1, *[1] * (x.dim() - 2))).movedim(1, 0).reshape(groups, rule.group_size, -1)
    wide_scale = scale.to(wide).view(groups, -1, 1)
    covariance = (columns @ columns.mT).to(wide) / columns.shape[-1] * (wide_scale @ wide_scale.mT)
    projection = rule.projection(covariance)
    return _applied(z, _weighted(projection, weight), bias, x), mean, covariance, projection


def _weighted(projection: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return projection
    return projection * weight.to(projection.dtype).view(len(projection), -1, 1)


def _centred(x: Tensor, mean: Tensor) -> Tensor:
    """x − mean in x's compute dtype; the mean is not rounded to it first."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    shift = mean.detach().to(compute_dtype(x))
    low = (mean - shift.to(mean.dtype)).to(shift.dtype)
    return x.to(shift.dtype) - shift.view(shape) - low.view(shape)


def _applied(centred: Tensor, matrix: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """matrix·centred + bias, in x's dtype and memory format."""
    columns = centred.movedim(1, 0).reshape(len(matrix), matrix.shape[1], -1)
    y = matrix.to(columns.dtype) @ columns
    if bias is not None:
        y = y + bias.to(y.dtype).view(len(matrix), -1, 1)
    y = y.view(x.shape[1], len(x), *x.shape[2:]).movedim(0, 1).to(x.dtype)
    if x.dim() > 3 and x.stride(1) == 1:
        return y.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    return y.contiguous()
