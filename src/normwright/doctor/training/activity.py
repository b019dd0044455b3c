"""Where activation functions are flat: saturated, or dead."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

#: A function is flat where its derivative is below this share of the largest that it has.
FLAT = 0.05

# Of the sigmoid, y(1 − y) < FLAT/4; of tanh, 1 − y² < FLAT; of softsign, (1 − |y|)² < FLAT.
_SIGMOID = math.sqrt(1 - FLAT) / 2
_TANH = math.sqrt(1 - FLAT)
_SOFTSIGN = 1 - math.sqrt(FLAT)

_IsFlat = Callable[[Tensor], Tensor]

#: Bounded on both sides, so that large inputs of either sign saturate them.
SATURATING: dict[str, _IsFlat] = {
    "sigmoid": lambda y: (y - 0.5).abs() > _SIGMOID,
    "tanh": lambda y: y.abs() > _TANH,
    "softsign": lambda y: y.abs() > _SOFTSIGN,
    "hardsigmoid": lambda y: (y <= 0) | (y >= 1),
    "hardtanh": lambda y: (y <= -1) | (y >= 1),
}


def _near_zero_from_below(y: Tensor) -> Tensor:
    """Where GELU and its like are that of inputs far below 0 or just below it: see `FLAT_INPUTS`."""
    return (y > -0.01) & (y <= 0)


#: Flat on one side or both: where all outputs of a unit are, no gradient passes it. Softplus and ELU are flat
#: where the derivative is below FLAT.
DEADENING: dict[str, _IsFlat] = {
    **SATURATING,
    "relu": lambda y: y <= 0,
    "relu6": lambda y: (y <= 0) | (y >= 6),
    "gelu": _near_zero_from_below,
    "silu": _near_zero_from_below,
    "mish": _near_zero_from_below,
    "hardswish": _near_zero_from_below,
    "elu": lambda y: y < FLAT - 1,
    "softplus": lambda y: y < -math.log(1 - FLAT),
}

#: Of the functions whose outputs do not tell inputs far below 0 from small ones, where the derivative is 1/2:
#: which inputs are in the flat part.
FLAT_INPUTS: dict[str, _IsFlat] = {
    "gelu": lambda x: x < -2.279,
    "silu": lambda x: x < -3.930,
    "mish": lambda x: x < -3.982,
    "hardswish": lambda x: x < -3,
}

_MODULES: dict[type[nn.Module], str] = {
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Softsign: "softsign",
    nn.Hardsigmoid: "hardsigmoid",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
}

_F, _T = nn.functional, Tensor
#: Functions that a forward calls, by the name of what they compute.
CALLS: dict[Callable[..., object], str] = {
    **dict.fromkeys((_F.relu, torch.relu, torch.relu_, _T.relu, _T.relu_), "relu"),
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, _T.sigmoid, _T.sigmoid_), "sigmoid"),
    **dict.fromkeys((torch.tanh, torch.tanh_, _T.tanh, _T.tanh_), "tanh"),
    **dict.fromkeys((torch.special.expit,), "sigmoid"),
    _F.softsign: "softsign",
    _F.hardsigmoid: "hardsigmoid",
    _F.relu6: "relu6",
    _F.gelu: "gelu",
    _F.silu: "silu",
    _F.mish: "mish",
    _F.hardswish: "hardswish",
    _F.softplus: "softplus",
    _F.elu: "elu",
    _F.leaky_relu: "leaky_relu",
    _F.batch_norm: "batch_norm",
    _F.layer_norm: "layer_norm",
    _F.group_norm: "group_norm",
    _F.instance_norm: "instance_norm",
    _F.rms_norm: "rms_norm",
    _F.local_response_norm: "local_response_norm",
}


def function_of(module: nn.Module) -> str:
    """The activation function that a module ends in, by its name in `DEADENING`, or "".

    Example:
        >>> function_of(nn.ReLU(inplace=True)), function_of(nn.Linear(1, 1))
        ('relu', '')
    """
    fused = getattr(module, "activation", None)  # of normwright's normalisers
    if isinstance(fused, str):
        return fused if fused in DEADENING else ""
    return next((_MODULES[kind] for kind in type(module).__mro__ if kind in _MODULES), "")
