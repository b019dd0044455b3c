"""What a case should give, computed by PyTorch in float64 on the device, where NumPy would take minutes.

The formula is the textbook's and its gradients are autograd's, of the very same inputs; a test compares it
with the reference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import EPS, Case
from benchmarks.inputs import Inputs

# Beside zero a ReLU's gradient hangs on the last bit of its input; dy is zero for inputs within this of it.
KINK = 1e-4
_KINKED = ("relu", "leaky_relu")


class Exact(NamedTuple):
    """The results in float64 by name, and the inputs that they are of."""

    results: dict[str, Tensor]
    inputs: Inputs


def exact(case: Case, inputs: Inputs) -> Exact:
    """y, and in a step the gradients. The inputs returned have another dy where the activation has a kink.

    An element whose exact z is within `KINK` of the kink may come out on either side of it, in a correct
    kernel too, and its gradient whole or not at all. There dy is made zero, for everyone.
    """
    wide = Inputs(*(None if tensor is None else tensor.detach().double() for tensor in inputs))  # type: ignore[arg-type]
    leaves = wide.leaves
    with torch.set_grad_enabled(case.mode == "step"):
        for leaf in leaves.values():
            leaf.requires_grad_(case.mode == "step")
        z = _before_activation(case, wide)
        y = _activate(z, case.activation)
    results = {"y": y.detach()}
    if case.mode == "step":
        if case.activation in _KINKED:
            near = z.detach().abs() < KINK
            inputs = inputs._replace(dy=inputs.dy.masked_fill(near, 0.0))
            wide = wide._replace(dy=wide.dy.masked_fill(near, 0.0))
        results |= zip(leaves, torch.autograd.grad(y, tuple(leaves.values()), wide.dy), strict=True)
    return Exact(results, inputs)


def _before_activation(case: Case, inputs: Inputs) -> Tensor:
    axes = case.axes
    view = inputs.x.reshape(axes.view)
    if case.mode == "inference" and inputs.running_mean is not None and inputs.running_var is not None:
        mean, variance = (t.reshape(axes.parameter_shape) for t in (inputs.running_mean, inputs.running_var))
        centred = view - mean
    else:
        centred = view - view.mean(axes.reduce, keepdim=True) if case.center else view
        variance = centred.square().mean(axes.reduce, keepdim=True)
    z = centred * (variance + EPS).rsqrt() * inputs.weight.reshape(axes.parameter_shape)
    if inputs.bias is not None:
        z = z + inputs.bias.reshape(axes.parameter_shape)
    z = z.reshape(case.shape)
    return z if inputs.residual is None else z + inputs.residual


def _activate(z: Tensor, activation: str | None) -> Tensor:
    if activation is None:
        return z
    function = getattr(F, activation, None) or getattr(torch, activation)
    y: Tensor = function(z)
    return y
