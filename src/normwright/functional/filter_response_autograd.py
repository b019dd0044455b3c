"""Filter response norm by the operators on channels, which see an instance as one.

Root mean squares are of an instance, a channel of a sample, alone; so a part needs to know of no other. Its
backward is batch norm's of a mean that is 0, which takes away a mean of the gradient too; that is given back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normwright.backends.activation import ACTIVATIONS
from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.functional.instance_parts import affine, in_any_order, known_parts, laid_out_like

_channel_moments = torch.ops.normwright.channel_moments.default
_channels_backward = torch.ops.normwright.channels_backward.default


def normalise_responses(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, threshold: Tensor | None, eps: float | Tensor
) -> Tensor:
    """max(x·rstd·weight + bias, threshold), with gradients of every order; x is (N, C, *space), not empty."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return _in_plain_operations(x, weight, bias, threshold, eps)
    y: Tensor = in_any_order(_Responses.apply, x, weight, bias, threshold, eps)
    return y


def _in_plain_operations(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, threshold: Tensor | None, eps: float | Tensor
) -> Tensor:
    wide = x.to(compute_dtype(x))
    square = wide.to(statistics_dtype(x)).square().flatten(2).mean(2)
    rstd = (square + eps).rsqrt().to(wide.dtype)
    shape = (*x.shape[:2], *[1] * (x.dim() - 2))
    z = wide * (rstd if weight is None else rstd * weight).view(shape)
    if bias is not None:
        z = z + bias.view(shape[1:])
    if threshold is not None:
        level = threshold.to(z.dtype).view(shape[1:])
        z = ACTIVATIONS["relu"].value(z - level) + level
    return z.to(x.dtype)


def _of_channels(x: Tensor, vector: Tensor | None, none: float) -> Tensor:
    """(C,), the vector in the dtype that is computed in, or a constant."""
    dtype = compute_dtype(x)
    return x.new_full(x.shape[1:2], none, dtype=dtype) if vector is None else vector.detach().to(dtype)


class _Responses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        threshold: Tensor | None,
        eps: float | Tensor,
    ) -> Tensor:
        parts, rstds, size = known_parts(x), [], x.shape[2:].numel()
        y, outs = parts.results(x)
        scales, level = _of_channels(x, weight, 1), _of_channels(x, threshold, 0)
        shifts = _of_channels(x, bias, 0) - level
        constants = (torch.zeros_like(scales), torch.ones_like(scales))
        vectors = [parts.of_channels(part, x) for part in (scales, shifts, *constants)]
        levels = parts.of_channels(level, x)
        activation = None if threshold is None else "relu"
        cuts = (parts.of(x), outs, *vectors, levels)
        for seen, out, scale, shift, zero, one, rise in zip(*cuts, strict=True):
            _, mean, m2 = _channel_moments(seen)
            rstd = m2.div_(size).addcmul_(mean, mean).add_(eps).rsqrt_()
            part = affine(out, seen, None, scale * rstd, shift, zero, one, 0.0, activation)
            if threshold is not None:  # max(z, τ) = relu(z - τ) + τ: the operator has a ReLU.
                affine(part, part, None, None, rise, zero, one, 0.0, None)
            rstds.append(rstd)
        learned = eps if isinstance(eps, Tensor) else None
        ctx.save_for_backward(x, weight, bias, threshold, learned)
        ctx.known = (eps, torch.cat(rstds).view(x.shape[:2]), scales, vectors, activation)
        return part.view(x.shape) if y is None else y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        eps, rstd, scales, vectors, activation = ctx.known
        if torch.is_grad_enabled():
            return _differentiable_backward(dy, x, parameters, eps)
        parts, sums, dtype, size = known_parts(x), [], scales.dtype, x.shape[2:].numel()
        moments = torch.stack([0 * rstd, rstd]).flatten(1)
        gains = (scales * rstd / size).to(dtype).flatten()
        # Half types are widened: their gradient is a sum of two terms, and rounded once.
        wide_dy, wide = laid_out_like(dy, x).to(dtype), x.to(dtype)
        dx, outs = parts.results(wide)
        cuts = (parts.of(wide_dy), parts.of(wide), outs, parts.of_instances(moments, gains), *vectors)
        for dy_part, seen, out, (known, gain), scale, shift, zero, one in zip(*cuts, strict=True):
            call = (dy_part, seen, None, scale, shift, None, known, activation, DX | DWEIGHT | DBIAS)
            part, _, of_x, of_one = _channels_backward(*call)
            affine(part if out is None else out, part, None, None, of_one * gain, zero, one, 0.0, None)
            sums.append((of_x, of_one, of_one if activation is None else _channel_moments(dy_part)[1]))
        of_x, of_one, passed = (torch.cat(part).view(x.shape[:2]) for part in zip(*sums, strict=True))
        weight, bias, threshold, learned = parameters
        return (
            (part.view(x.shape) if dx is None else dx).to(x.dtype),
            None if weight is None else of_x.sum(0).to(weight.dtype),
            None if bias is None else of_one.sum(0).to(bias.dtype),
            None if threshold is None else (passed * size - of_one).sum(0).to(threshold.dtype),
            None if learned is None else (of_x * scales * rstd.square()).sum().mul(-0.5).to(learned.dtype),
        )


def _differentiable_backward(
    dy: Tensor, x: Tensor, parameters: list[Tensor | None], eps: float | Tensor
) -> tuple[Tensor | None, ...]:
    weight, bias, threshold, learned = parameters
    y = _in_plain_operations(x, weight, bias, threshold, eps if learned is None else learned)
    given = (x, *parameters)
    wanted = [part for part in given if part is not None and part.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))
    return tuple(next(found) if part is not None and part.requires_grad else None for part in given)
