"""The activations that an operator can fuse, and their derivatives, in plain differentiable PyTorch.

A derivative is written out rather than taken from PyTorch's backward operators, because these are
not all differentiable again; the double backward of every normaliser goes through here.

The values of torch.sigmoid, silu and gelu are not used either: in the last elements of a block they are
rounded in another way, so that the bits would change with the number of threads. exp and erf are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

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


def _sigmoid(z: Tensor) -> Tensor:
    # The derivative of exp(-z) overflows where z is far below zero; torch.sigmoid's does not.
    if z.requires_grad or forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return torch.sigmoid(z)
    return torch.exp(-z).add_(1).reciprocal_()


def _silu(z: Tensor) -> Tensor:
    return z * _sigmoid(z)


def _silu_derivative(z: Tensor) -> Tensor:
    s = _sigmoid(z)
    return s * (1 + z * (1 - s))


def _normal_distribution(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def _gelu(z: Tensor) -> Tensor:
    return z * _normal_distribution(z)


def _gelu_derivative(z: Tensor) -> Tensor:
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return _normal_distribution(z) + z * density


def _sigmoid_derivative(z: Tensor) -> Tensor:
    s = _sigmoid(z)
    return s * (1 - s)


def _tanh_derivative(z: Tensor) -> Tensor:
    return 1 - torch.tanh(z).square()


ACTIVATIONS = {
    "relu": Activation(torch.relu, _relu_derivative),
    "leaky_relu": Activation(_leaky_relu, _leaky_relu_derivative),
    "silu": Activation(_silu, _silu_derivative),
    "gelu": Activation(_gelu, _gelu_derivative),
    "sigmoid": Activation(_sigmoid, _sigmoid_derivative),
    "tanh": Activation(torch.tanh, _tanh_derivative),
}
