"""Dynamic tanh by the kernels of `channel_affine`: one call for the tanh, and one for weight and bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normwright.backends.gradients import DALPHA, DBIAS, DWEIGHT, DX
from normwright.backends.moments import compute_dtype, total
from normwright.backends.normalised import Gradients, activated

Affine = Callable[..., Any]


def _seen(x: Tensor, axis: int) -> Tensor:
    """x with its channels on axis 1; without a copy where the other axes fold into one in memory."""
    return x if axis == 1 else x.movedim(axis, -1).reshape(-1, x.shape[axis])


def _restored(seen: Tensor, x: Tensor, axis: int) -> Tensor:
    if axis != 1:
        seen = seen.view(x.movedim(axis, -1).shape).movedim(-1, axis)
    return activated(seen, x, None)


def _constants(x: Tensor, channels: int) -> tuple[Tensor, Tensor, float]:
    zeros = torch.zeros(channels, dtype=compute_dtype(x), device=x.device)
    return zeros, torch.ones_like(zeros), 0.0


def _squashed(affine: Affine, seen: Tensor, alpha: Tensor, known: tuple[Tensor, Tensor, float]) -> Any:
    slope = alpha.to(known[0].dtype).expand(known[0].shape)
    return affine(seen, None, slope, None, *known, "tanh"), slope


def channel_tanh(
    affine: Affine, x: Tensor, alpha: Tensor, weight: Tensor | None, bias: Tensor | None, axis: int
) -> Tensor:
    """See `schema.py`; `affine` is the operator `channel_affine`."""
    known = _constants(x, x.shape[axis])
    y, _ = _squashed(affine, _seen(x, axis), alpha, known)
    if weight is not None or bias is not None:
        y = affine(y, None, weight, bias, *known, None)
    return _restored(y, x, axis)


def channel_tanh_backward(
    affine: Affine,
    affine_backward: Affine,
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    axis: int,
    wanted: int,
) -> Gradients:
    """See `schema.py`; `affine` and `affine_backward` are the operators `channel_affine` and its backward."""
    known = _constants(x, x.shape[axis])
    seen, dt = _seen(x, axis), _seen(dy, axis)
    t, slope = _squashed(affine, seen, alpha, known)
    dweight = dbias = None
    if weight is not None or bias is not None:
        of_t = DX | (wanted & (DWEIGHT | DBIAS))
        dt, _, dweight, dbias = affine_backward(dt, t, None, weight, bias, *known, None, of_t)
    of_x = (wanted & DX) | (DWEIGHT if wanted & DALPHA else 0)
    dx, _, dslope, _ = affine_backward(dt, seen, None, slope, None, *known, "tanh", of_x)
    dalpha = None
    if wanted & DALPHA:
        dalpha = total(dslope, [0]).reshape(alpha.shape).to(alpha.dtype)
    return None if dx is None else _restored(dx, x, axis), dalpha, dweight, dbias
