"""What the operators in plain PyTorch share: the map and the activation after x̂, and the way back.

The backward uses differentiable operations only: see `eager.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normwright.backends import masks
from normwright.backends.activation import ACTIVATIONS, LEAKY_SLOPE
from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.layout import Layout
from normwright.backends.moments import Moments, restandardise, standardise, standardise_backward, total

Results = tuple[Tensor, Tensor]
MaskedResults = tuple[Tensor, Tensor, Tensor]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def mapped(
    x_hat: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, layout: Layout
) -> Tensor:
    """x̂·weight + bias + residual, in x̂'s dtype."""
    z = x_hat
    if weight is not None:
        z = z * weight.view(layout.parameter_view).to(z.dtype)
    if bias is not None:
        z = z + bias.view(layout.parameter_view).to(z.dtype)
    if residual is not None:
        z = z + residual.view(layout.view).to(z.dtype)
    return z


def is_batched(tensor: Tensor) -> bool:
    """Whether the tensor stands for several, as with `is_grads_batched=True`."""
    functorch = torch._C._functorch
    return bool(functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor))


def like(value: Tensor, x: Tensor) -> Tensor:
    """The value in the shape, dtype and strides that `empty_like(x)` has; broadcasting may choose others."""
    if value.shape != x.shape:
        # Copied, because a view may not be changed in place afterwards, as ReLU(inplace=True) does.
        value = value.reshape(x.shape).clone()
    value = value.to(x.dtype)
    model = torch.empty_like(x)
    if value.stride() == model.stride():
        return value
    if is_batched(value):
        return value  # it has no strides of its own
    return model.copy_(value)


def activated(z: Tensor, x: Tensor, activation: str | None) -> Tensor:
    """The activation's value, in the likeness of x."""
    return like(ACTIVATIONS[activation].value(z) if activation else z, x)


class Normalised(NamedTuple):
    """What a forward comes to: y, its moments, and the mask where there is one."""

    y: Tensor
    moments: Moments
    mask: Tensor | None

    def results(self, shape: Sequence[int]) -> Results:
        """y, and mean (if centred) and rstd, each of this shape, in one tensor."""
        mean, _, rstd = self.moments
        both = [rstd] if mean is None else [mean, rstd]
        return self.y, torch.stack([moment.reshape(shape) for moment in both])

    def masked_results(self, shape: Sequence[int]) -> MaskedResults:
        """The same with the mask."""
        assert self.mask is not None
        return *self.results(shape), self.mask


def normalise(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    layout: Layout,
    eps: float,
    activation: str | None,
    *,
    center: bool = True,
    mask_order: masks.Order | None = None,
) -> Normalised:
    """y with its moments; with a mask too, where its order is given."""
    x_hat, moments = standardise(x.view(layout.view), layout.moment_axes, eps, center=center)
    z = mapped(x_hat, residual, weight, bias, layout)
    mask = None
    if mask_order is not None:
        ones = ~(z <= 0) if activation == "relu" else z > 0
        mask = masks.pack(ones.reshape(x.shape), mask_order)
    return Normalised(activated(z, x, activation), moments, mask)


def _through_mask(dz: Tensor, mask: Tensor, x: Tensor, order: masks.Order, activation: str | None) -> Tensor:
    ones = masks.unpack(mask, x, order).view(dz.shape)
    return torch.where(ones, dz, dz * LEAKY_SLOPE) if activation == "leaky_relu" else dz.masked_fill(~ones, 0)


def differentiate(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor,
    layout: Layout,
    activation: str | None,
    wanted: int,
    *,
    center: bool = True,
    batch_moments: bool = True,
    mask: Tensor | None = None,
    mask_order: masks.Order | None = None,
) -> Gradients:
    """dx, dresidual, dweight, dbias; None for each that `wanted` does not ask for.

    mean and rstd broadcast against the layout's view. `batch_moments=False` takes them as constants.
    """
    x_hat = restandardise(x.view(layout.view), mean, rstd)
    dz = dy.reshape(layout.view).to(x_hat.dtype)
    if mask is not None and mask_order is not None:
        dz = _through_mask(dz, mask, x, mask_order, activation)
    elif activation:
        dz = dz * ACTIVATIONS[activation].derivative(mapped(x_hat, residual, weight, bias, layout))
    dx = dresidual = dweight = dbias = None
    if wanted & DX:
        g = dz if weight is None else dz * weight.view(layout.parameter_view).to(dz.dtype)
        if batch_moments:
            g = standardise_backward(g, x_hat, rstd, layout.moment_axes, center=center)
        else:
            g = g * rstd.to(g.dtype)
        dx = like(g, x)
    if wanted & DRESIDUAL:
        dresidual = like(dz, x if residual is None else residual)
    if wanted & DWEIGHT and weight is not None:
        dweight = parameter_gradient(dz * x_hat, weight, layout)
    if wanted & DBIAS and bias is not None:
        dbias = parameter_gradient(dz, bias, layout)
    return dx, dresidual, dweight, dbias


def parameter_gradient(terms: Tensor, parameter: Tensor, layout: Layout) -> Tensor:
    """Σ of the terms of each parameter, in its likeness."""
    # An empty list of axes would mean all of them: a parameter per element is summed over nothing.
    gradient = total(terms, layout.parameter_axes) if layout.parameter_axes else terms
    return gradient.reshape(parameter.shape).to(parameter.dtype)
