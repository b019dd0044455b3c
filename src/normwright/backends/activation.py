"""The activations that an operator can fuse, and their derivatives, in plain differentiable PyTorch.

A derivative is written out rather than taken from PyTorch's backward operators, because these are
not all differentiable again; the double backward of every normaliser goes through here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LEAKY_SLOPE = 0.01  # torch.nn.functional.leaky_relu's default


class Activation(NamedTuple):
    """An activation a(z) and its derivative a'(z), both elementwise."""

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _relu_derivative(z: Tensor) -> Tensor:
    # Asked as "not below", so that a NaN passes the gradient on, as in PyTorch.
    return torch.ones_like(z).masked_fill(z <= 0, 0.0)


def _leaky_relu(z: Tensor) -> Tensor:
    return torch.nn.functional.leaky_relu(z, LEAKY_SLOPE)


def _leaky_relu_derivative(z: Tensor) -> Tensor:
    # Filled in z's dtype: a `where` of two Python numbers would round the slope to float32 first.
    return torch.full_like(z, LEAKY_SLOPE).masked_fill(z > 0, 1.0)


def _silu_derivative(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 + z * (1 - s))


def _gelu_derivative(z: Tensor) -> Tensor:
    cumulative = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return cumulative + z * density


def _sigmoid_derivative(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s)


def _tanh_derivative(z: Tensor) -> Tensor:
    return 1 - torch.tanh(z).square()


ACTIVATIONS = {
    "relu": Activation(torch.relu, _relu_derivative),
    "leaky_relu": Activation(_leaky_relu, _leaky_relu_derivative),
    "silu": Activation(torch.nn.functional.silu, _silu_derivative),
    "gelu": Activation(torch.nn.functional.gelu, _gelu_derivative),
    "sigmoid": Activation(torch.sigmoid, _sigmoid_derivative),
    "tanh": Activation(torch.tanh, _tanh_derivative),
}
