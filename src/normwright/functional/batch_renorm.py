"""Batch renormalisation as a function."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from normwright.errors import OptionError
from normwright.functional.arguments import check_scalar, is_number
from normwright.functional.batch_norm import batch_norm, check_call, check_running
from normwright.functional.moving import move_under_transforms
from normwright.functional.sharded import check_not_sharded

_channel_moments = torch.ops.normwright.channel_moments.default


def batch_renorm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    r_max: float | Tensor = 3.0,
    d_max: float | Tensor = 5.0,
    residual: Tensor | None = None,
    activation: str | None = None,
    num_batches_tracked: Tensor | None = None,
) -> Tensor:
    """Normalises each channel by its moments over batch and space, corrected towards the running ones.

        y = activation((x̂·r + d)·weight + bias + residual),    x̂ = (x - mean)/√(variance + eps)
        r = σ_batch/σ clipped to [1/r_max, r_max],    d = (mean - running_mean)/σ clipped to [-d_max, d_max]

    in training, where σ = √(running_var + eps), and r and d are constants to the gradient. Inference is that
    of `batch_norm`. The running statistics move towards the batch's mean and its *biased deviation*:
    σ moves by momentum·(σ_batch - σ), and running_var is σ² - eps, so that a checkpoint is one of batch norm.
    Under `torch.func` they move as `batch_norm`'s.

    Args:
        input: (N, C) or (N, C, *space), floating point, any memory format.
        running_mean: (C,). Moved in place in training.
        running_var: (C,), likewise.
        weight: (C,), or None for 1; input's dtype, or float32 with a half-precision input.
        bias: (C,), or None for 0.
        training: normalise by this batch's moments.
        momentum: share of this batch in the running statistics; None takes 1/num_batches_tracked, the
            cumulative mean over all batches.
        eps: added to the variance; same unit as input².
        r_max: at least 1; 1 and a `d_max` of 0 make it batch norm. A number, or a scalar tensor.
        d_max: at least 0.
        residual: input's shape, added before the activation.
        activation: relu, leaky_relu (slope 0.01), silu, gelu, sigmoid, tanh or None.
        num_batches_tracked: integer scalar, raised by one in training; needed where momentum is None.
    Returns:
        input's shape, dtype and memory format.
    Raises:
        ShapeError: one value per channel in training, or a vector that is not (C,).
        OptionError: running statistics that are missing, r_max below 1 or d_max below 0, or eps below 0,
            or 0 in training.
        DtypeError: an input that is not floating point, or parameters of another dtype.
    References:
        Ioffe 2017, arXiv:1702.03275.
    Example:
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> batch_renorm(x, torch.zeros(1), torch.ones(1), training=True, eps=1e-12)
        tensor([[1.],
                [3.]])
    """
    if type(input) is not Tensor:
        check_not_sharded("batch renormalisation", input)
    fused: dict[str, Any] = {"residual": residual, "activation": activation}
    if not training:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps, **fused)
    vectors = (running_mean, running_var, weight, bias)
    check_call("batch_norm", input, residual, vectors, activation, eps, training=True)
    check_running(running_mean, running_var, momentum, num_batches_tracked)
    _check(running_mean, r_max, d_max)
    eps = float(eps)
    if not input.numel():
        return batch_norm(input, None, None, weight, bias, True, eps=eps, **fused)
    with torch.no_grad():
        count, mean, m2 = _channel_moments(input)
        batch_deviation = (m2 / count + eps).sqrt()
        deviation = (running_var.double() + eps).sqrt()
        r = (batch_deviation / deviation).clamp(min=1 / r_max, max=r_max)
        d = ((mean - running_mean) / deviation).clamp(min=-d_max, max=d_max)
    scale, shift = _effective(input, weight, bias, r, d)
    y = batch_norm(input, None, None, scale, shift, True, eps=eps, **fused)
    running = (running_mean, running_var, num_batches_tracked)
    move = partial(move_deviation, *running, momentum, eps)
    move_under_transforms(move, running, mean, batch_deviation, deviation)
    return y


@torch.no_grad()
def move_deviation(
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
    eps: float,
    mean: Tensor,
    batch_deviation: Tensor,
    deviation: Tensor,
) -> None:
    """Moves running statistics in place towards a batch of this mean and deviation."""
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
    share = momentum if momentum is not None else 1 / num_batches_tracked.double()  # type: ignore[union-attr]
    moved = deviation + share * (batch_deviation - deviation)
    running_mean.copy_(running_mean + share * (mean - running_mean))
    running_var.copy_((moved.square() - eps).clamp_(min=0.0))


def _effective(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, r: Tensor, d: Tensor
) -> tuple[Tensor, Tensor]:
    """The weight and bias with which batch norm is batch renorm; float32 with a half-precision input."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    scale, shift = r.to(dtype), d.to(dtype)
    if weight is not None:
        gain = weight.to(dtype)
        scale, shift = scale * gain, shift * gain
    return scale, shift if bias is None else shift + bias.to(dtype)


def _check(running_mean: Tensor | None, r_max: float | Tensor, d_max: float | Tensor) -> None:
    if running_mean is None:
        raise OptionError(
            "running_mean and running_var must be given, but are None: batch renorm corrects towards them; "
            "use batch_norm without them"
        )
    for name, value, least in (("r_max", r_max, 1), ("d_max", d_max, 0)):
        if isinstance(value, Tensor):
            check_scalar(name, value)
        elif not is_number(value) or not value >= least:
            raise OptionError(f"{name} must be at least {least}, but is {value!r}")
