"""Filter response norm with its unit, and with an eps that is learned.

Both are beyond the operators of groups, which know filter response norm as instance norm of a mean of 0. The
unit is the larger of z and τ as they stand: relu(z - τ) + τ would lose z where τ is far from it. Its gradient
is their ReLU's of z - τ, and so goes to τ where they are equal. By eps,  dz = -½·x̂·weight·rstd²  at every
element.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.backends.normalised import is_batched
from normwright.functional.differentiable_gradients import differentiable_gradients
from normwright.functional.forward_mode import needs_plain_operations

_channel_moments = torch.ops.normwright.channel_moments.default
_groups_backward = torch.ops.normwright.groups_backward.default
_groups_forward = torch.ops.normwright.groups_forward.default


def normalise_responses(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, threshold: Tensor | None, eps: float | Tensor
) -> Tensor:
    """max(x·rstd·weight + bias, threshold), with gradients of every order; x is (N, C, *space), not empty."""
    # An operator takes a number: for an eps on a GPU the host would have to wait.
    waits = isinstance(eps, Tensor) and eps.device.type != "cpu"
    learned = eps if isinstance(eps, Tensor) else None
    if waits or needs_plain_operations(x, weight, bias, threshold, learned):
        return _in_plain_operations(x, weight, bias, threshold, eps)
    y: Tensor = _Responses.apply(x, weight, bias, threshold, eps)
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
        z = torch.where((z > level) | z.isnan(), z, level)
    return z.to(x.dtype)


def _formula(known: float, *parts: Any) -> tuple[Tensor]:
    """The same of an eps among the parts, which is None where it is not learned."""
    x, weight, bias, threshold, learned = parts
    return (_in_plain_operations(x, weight, bias, threshold, known if learned is None else learned),)


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
        learned = eps if isinstance(eps, Tensor) else None
        known = float(eps)
        y: Tensor
        y, moments = _groups_forward(x, None, weight, bias, x.shape[1], False, known, None)
        if threshold is not None:
            torch.maximum(y, threshold.to(y.dtype).view(-1, *[1] * (x.dim() - 2)), out=y)
        ctx.save_for_backward(x, weight, bias, threshold, learned)
        ctx.known = known, moments
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:  # nothing depends on y
            return (None,) * 5
        x, weight, bias, threshold, learned = inputs = ctx.saved_tensors
        eps, moments = ctx.known
        if torch.is_grad_enabled() or is_batched(dy):
            plain = partial(_formula, eps)
            return tuple(differentiable_gradients(plain, inputs, ctx.needs_input_grad, (dy,)))
        to_x, to_weight, to_bias, to_threshold, to_eps = ctx.needs_input_grad
        shift, activation = bias, None
        if threshold is not None:
            # In the dtype of sums, in which its gradient then comes.
            level = threshold.to(statistics_dtype(x))
            shift, activation = -level if bias is None else bias - level, "relu"
        wanted = DX * to_x + DWEIGHT * to_weight + DBIAS * (to_bias or to_threshold)
        settings = (x.shape[1], False, activation, wanted)
        dx, _, dweight, dshift = _groups_backward(dy, x, None, weight, shift, None, moments, *settings)
        return (
            dx,
            dweight,
            dshift.to(bias.dtype) if to_bias else None,
            (_sum_of(dy) - dshift).to(threshold.dtype) if to_threshold else None,
            _by_eps(dy, x, weight, shift, moments, activation).to(learned.dtype) if to_eps else None,
        )


def _sum_of(dy: Tensor) -> Tensor:
    """Of each channel, over the batch and space."""
    count, mean, _ = _channel_moments(dy)
    total: Tensor = count * mean
    return total


def _by_eps(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    shift: Tensor | None,
    moments: Tensor,
    activation: str | None,
) -> Tensor:
    """The gradient by eps, from Σ dz·x̂ of each channel of each sample: to the operator, channels of one."""
    samples, channels, rstd = len(x), x.shape[1], moments.flatten()
    dy, x = (part.contiguous().view(1, -1, *part.shape[2:]) for part in (dy, x))
    scale = (torch.ones_like(rstd[:channels]) if weight is None else weight.to(rstd.dtype)).repeat(samples)
    shift = None if shift is None else shift.repeat(samples)
    settings = (samples * channels, False, activation, DWEIGHT)
    along: Tensor = _groups_backward(dy, x, None, scale, shift, None, moments.view(1, 1, -1), *settings)[2]
    return (along * scale * rstd.square()).sum() * -0.5
