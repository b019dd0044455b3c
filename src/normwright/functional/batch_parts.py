"""Batch norm of one part of a batch after the other, each written to its place in the results of all.

A part is read twice in either direction, the second time from a cache, as far as one holds it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.functional import operators
from normwright.functional.instance_parts import laid_out_like

_channel_affine_out = torch.ops.normwright.channel_affine_out.default
_channel_moments = torch.ops.normwright.channel_moments.default
_channels_backward = torch.ops.normwright.channels_backward.default


def takes_parts(x: Tensor) -> bool:
    """Whether x lies in an order of memory that its parts have too, and nothing looks into the function."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return x.is_contiguous() or x.movedim(1, -1).is_contiguous()


class PartsOfBatch(torch.autograd.Function):
    """y, and the mean and biased variance of each part, (G, C); `sizes` are their samples, in order."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, sizes: list[int], eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        y, means, variances = torch.empty_like(x), [], []
        for seen, out in zip(x.split(sizes), y.split(sizes), strict=True):
            count, mean, m2 = _channel_moments(seen)
            means.append(mean)
            variances.append(m2.div_(count))
            _channel_affine_out(seen, None, weight, bias, mean, m2, eps, None, out)
        mean, variance = torch.stack(means), torch.stack(variances)
        ctx.save_for_backward(x, weight, bias)
        ctx.known = (sizes, eps, torch.stack([mean, (variance + eps).rsqrt_()], 1))
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """dx, dweight and dbias."""
        x, weight, bias = ctx.saved_tensors
        sizes, eps, moments = ctx.known
        if dy is None:
            return None, None, None, None, None
        if torch.is_grad_enabled():
            return *_differentiable_backward(dy, x, weight, bias, sizes, eps), None, None
        dx, of_parts = torch.empty_like(x), []
        wanted = DX | DWEIGHT * (weight is not None) | DBIAS * (bias is not None)
        cuts = (part.split(sizes) for part in (laid_out_like(dy, x), x, dx))
        for dy_part, seen, out, known in zip(*cuts, moments, strict=True):
            part, _, *sums = _channels_backward(dy_part, seen, None, weight, bias, None, known, None, wanted)
            out.copy_(part)
            of_parts.append(sums)
        sums = [None if part[0] is None else torch.stack(part).sum(0) for part in zip(*of_parts, strict=True)]
        return dx, *sums, None, None


def _differentiable_backward(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, sizes: list[int], eps: float
) -> list[Tensor | None]:
    given = (x, weight, bias)
    call = (None, weight, bias, None, None, None, None, eps, None)
    y = torch.cat([operators.channels(part, *call) for part in x.split(sizes)])
    wanted = [part for part in given if part is not None and part.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    return [next(found) if part is not None and part.requires_grad else None for part in given]
