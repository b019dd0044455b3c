"""Dynamic tanh in plain PyTorch. See `schema.py`, and `eager.py` for what is asked of these operators."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.gradients import DALPHA, DBIAS, DWEIGHT, DX
from normwright.backends.layout import channels_layout
from normwright.backends.moments import compute_dtype, total
from normwright.backends.normalised import Gradients, activated, mapped, parameter_gradient


def channel_tanh(x: Tensor, alpha: Tensor, weight: Tensor | None, bias: Tensor | None, axis: int) -> Tensor:
    """See `schema.py`."""
    wide = x.to(compute_dtype(x))
    t = torch.tanh(wide * alpha.to(wide.dtype))
    return activated(mapped(t, None, weight, bias, channels_layout(x, axis)), x, None)


def channel_tanh_backward(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    axis: int,
    wanted: int,
) -> Gradients:
    """See `schema.py`."""
    layout = channels_layout(x, axis)
    wide = x.to(compute_dtype(x))
    slope, dy = alpha.to(wide.dtype), dy.to(wide.dtype)
    t = torch.tanh(wide * slope)
    dz = mapped(dy * (1 - t.square()), None, weight, None, layout)
    dx = dalpha = dweight = dbias = None
    if wanted & DX:
        dx = activated(dz * slope, x, None)
    if wanted & DALPHA:
        dalpha = total(dz * wide, list(range(x.dim()))).reshape(alpha.shape).to(alpha.dtype)
    if wanted & DWEIGHT and weight is not None:
        dweight = parameter_gradient(dy * t, weight, layout)
    if wanted & DBIAS and bias is not None:
        dbias = parameter_gradient(dy, bias, layout)
    return dx, dalpha, dweight, dbias
