"""Filter response norm with its unit, and with an eps that is learned.

Both are beyond the operators of groups, which know filter response norm as instance norm of a mean of 0. The
unit is the larger of z and τ as they stand: relu(z - τ) + τ would lose z where τ is far from it. The gradient
goes to the larger, half of it to each where they are equal, as torch.maximum's does; at a NaN it goes to z.
So it is the operators' own relu of z - τ wherever no z equals τ, which is asked in the forward: going by what
is equal takes a tensor or two as large as x. By eps,  dz = -½·x̂·weight·rstd²  at every element.
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

_channel_moments = torch.ops.normwright.channel_moments.default
_groups_backward = torch.ops.normwright.groups_backward.default
_groups_forward = torch.ops.normwright.groups_forward.default
_groups_inference = torch.ops.normwright.groups_inference.default
_threshold_backward = torch.ops.aten.threshold_backward.grad_input

_PIECE = 2**18  # elements, a megabyte of float32


def normalise_responses(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, threshold: Tensor | None, eps: float | Tensor
) -> Tensor:
    """max(x·rstd·weight + bias, threshold), with gradients of every order; x is (N, C, *space), not empty."""
    # An operator takes a number: for an eps on a GPU the host would have to wait.
    waits = isinstance(eps, Tensor) and eps.device.type != "cpu"
    if waits or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return _in_plain_operations(x, weight, bias, threshold, eps)
    y: Tensor = _Responses.apply(x, weight, bias, threshold, eps, torch.is_grad_enabled())
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
        z = torch.maximum(z, level)
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
        backward_may_follow: bool,
    ) -> Tensor:
        learned = eps if isinstance(eps, Tensor) else None
        known = float(eps)
        y: Tensor
        y, moments = _groups_forward(x, None, weight, bias, x.shape[1], False, known, None)
        ties = False
        if threshold is not None:
            level = _column(threshold.to(y.dtype), y)
            ties = backward_may_follow and _may_be_equal(y, level)
            torch.maximum(y, level, out=y)
        ctx.save_for_backward(x, weight, bias, threshold, learned)
        ctx.known = known, moments, ties
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:  # nothing depends on y
            return (None,) * 6
        x, weight, bias, threshold, learned = inputs = ctx.saved_tensors
        eps, moments, ties = ctx.known
        if torch.is_grad_enabled() or is_batched(dy):
            plain = partial(_formula, eps)
            return *differentiable_gradients(plain, inputs, ctx.needs_input_grad[:5], (dy,)), None
        to_x, to_weight, to_bias, to_threshold, to_eps, _ = ctx.needs_input_grad
        dz, shift, activation = dy, bias, None
        if threshold is not None:
            # In the dtype of sums, in which its gradient then comes.
            level = threshold.to(statistics_dtype(x))
            shift, activation = -level if bias is None else bias - level, "relu"
        if ties:
            dz, activation = _through_unit(dy, x, weight, bias, threshold, eps), None
        wanted = DX * to_x + DWEIGHT * to_weight + DBIAS * (to_bias or to_threshold)
        settings = (x.shape[1], False, activation, wanted)
        dx, _, dweight, dshift = _groups_backward(dz, x, None, weight, shift, None, moments, *settings)
        return (
            dx,
            dweight,
            dshift.to(bias.dtype) if to_bias else None,
            (_sum_of(dy) - dshift).to(threshold.dtype) if to_threshold else None,
            _by_eps(dz, x, weight, shift, moments, activation).to(learned.dtype) if to_eps else None,
            None,
        )


def _column(vector: Tensor, x: Tensor) -> Tensor:
    return vector.view(-1, *[1] * (x.dim() - 2))


def _may_be_equal(z: Tensor, level: Tensor) -> bool:
    """Whether some z equals its level; on a device for which the host would have to wait, always.

    Asked by numbers, which takes a sixth of the time of booleans, and a few samples at a time, in memory that
    stays in a core's cache.
    """
    if z.device.type != "cpu":
        return True
    samples = max(1, _PIECE * torch.get_num_threads() * len(z) // z.numel())
    equal = torch.empty_like(z[:samples])
    return any(bool(torch.eq(part, level, out=equal[: len(part)]).sum()) for part in z.split(samples))


def _through_unit(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, threshold: Tensor, eps: float
) -> Tensor:
    """dy where z > τ, half of it where they are equal, 0 where z < τ."""
    wide = x.to(compute_dtype(x))
    weight, bias = (None if part is None else part.to(wide.dtype) for part in (weight, bias))
    z = _groups_inference(wide, None, weight, bias, x.shape[1], False, eps, None)
    level = _column(threshold.to(z.dtype), z)
    # 0, ½ or 1 as numbers, and in place: of booleans, and in fresh memory, it takes ten times as long.
    share = torch.lt(z, level, out=torch.empty_like(z))
    torch.lerp(share, z.le_(level), 0.5, out=share)
    torch.sub(torch.ones((), dtype=z.dtype), share, out=share)
    torch.mul(dy, share, out=z)
    dz: Tensor = _threshold_backward(z, share, 0.0, grad_input=z)  # 0 where 0·dy was NaN
    return dz.to(dy.dtype)


def _sum_of(dy: Tensor) -> Tensor:
    """Of each channel, over the batch and space."""
    count, mean, _ = _channel_moments(dy)
    total: Tensor = count * mean
    return total


def _by_eps(
    dz: Tensor,
    x: Tensor,
    weight: Tensor | None,
    shift: Tensor | None,
    moments: Tensor,
    activation: str | None,
) -> Tensor:
    """The gradient by eps, from Σ dz·x̂ of each channel of each sample: to the operator, channels of one."""
    samples, channels, rstd = len(x), x.shape[1], moments.flatten()
    dz, x = (part.contiguous().view(1, -1, *part.shape[2:]) for part in (dz, x))
    scale = (torch.ones_like(rstd[:channels]) if weight is None else weight.to(rstd.dtype)).repeat(samples)
    shift = None if shift is None else shift.repeat(samples)
    settings = (samples * channels, False, activation, DWEIGHT)
    along: Tensor = _groups_backward(dz, x, None, scale, shift, None, moments.view(1, 1, -1), *settings)[2]
    return (along * scale * rstd.square()).sum() * -0.5
