"""Jagged tensors, of whose rows PyTorch's layer and RMS norm are, and what stands in their place."""

from __future__ import annotations

import pytest
import torch

from normwright import nn
from normwright.functional import layer_norm, rms_norm

WIDTH = 6


def jagged(seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = [torch.randn(length, WIDTH, generator=draw) for length in (3, 5, 1)]
    return torch.nested.nested_tensor(rows, layout=torch.jagged)


@pytest.mark.parametrize("kind", ["LayerNorm", "RMSNorm", "DynamicTanh"])
def test_rows_are_normalised_as_those_of_their_values(kind):
    module, x = getattr(nn, kind)(WIDTH), jagged()
    values = x.values().clone().requires_grad_()
    x.requires_grad_()
    y, expected = module(x), module(values)
    assert y.shape == x.shape
    assert torch.equal(y.values(), expected)
    (y.values() ** 3).sum().backward()
    weight, module.weight.grad = module.weight.grad, None
    (expected**3).sum().backward()
    assert torch.equal(x.grad.values(), values.grad)
    assert torch.equal(weight, module.weight.grad)


def test_a_residual_and_an_activation():
    x = jagged()
    y = layer_norm(x, (WIDTH,), residual=x * 2, activation="relu")
    assert torch.equal(
        y.values(), layer_norm(x.values(), (WIDTH,), residual=x.values() * 2, activation="relu")
    )


def test_where_the_jagged_axis_is_not_the_second():
    x = torch.nested.nested_tensor_from_jagged(
        torch.randn(4, 9, WIDTH), torch.tensor([0, 5, 9]), jagged_dim=2
    )
    assert torch.equal(rms_norm(x, (WIDTH,)).values(), rms_norm(x.values(), (WIDTH,)))


def test_the_jagged_axis_itself_is_refused():
    x = jagged()
    with pytest.raises(RuntimeError, match="must come after the jagged one, which is axis 1, but"):
        layer_norm(x, tuple(x.shape[1:]))
