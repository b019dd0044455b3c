"""Which units are never active: exactly, though most elements are not read."""

from __future__ import annotations

import pytest
import torch

from normwright.doctor.training.activity import DEADENING, FLAT_INPUTS
from normwright.doctor.training.units import Units


def dead(*outputs, axis=1, function="relu"):
    units = Units(outputs[0].shape[axis], axis == 1 and outputs[0].dim() > 2)
    for y in outputs:
        units.watch(y, axis, DEADENING[function])
    return units


def test_one_active_element_is_enough():
    y = torch.zeros(16, 8, 30, 31)
    for channel in range(7):  # in places that a first look does not meet
        y[channel + 3, channel, channel * 3 + 1, 29] = 1e-20
    assert dead(y).dead() == (7,)


def test_activity_in_any_batch_counts():
    first, second = torch.zeros(4, 3), torch.zeros(4, 3)
    first[1, 0] = second[3, 2] = 1.0
    found = dead(first, second)
    assert (found.dead(), found.seen, found.spatial) == ((1,), 8, False)


@pytest.mark.parametrize("shape", [(5, 6), (2, 6, 5), (2, 6, 3, 3)])
def test_as_plain_reading_says(shape):
    torch.manual_seed(0)
    ys = [(torch.randn(shape) - 2).relu() for _ in range(3)]
    silent = torch.stack([(y <= 0).transpose(0, 1).flatten(1).all(1) for y in ys]).all(0)
    assert dead(*ys).dead() == tuple(silent.nonzero().flatten().tolist())


def test_features_may_be_last():
    y = torch.zeros(2, 5, 3)
    y[..., 1] = 1
    found = dead(y, axis=2)
    assert (found.dead(), found.spatial, found.seen) == ((0, 2), False, 10)


def test_a_layer_whose_width_changes_has_no_units():
    assert not dead(torch.ones(2, 3), torch.ones(2, 4)).steady


def test_nothing_seen_is_not_dead():
    assert dead(torch.zeros(0, 3)).dead() == ()


@pytest.mark.parametrize(
    ("function", "flat", "steep"),
    [("sigmoid", (0.01, 0.99), 0.05), ("tanh", (-0.99, 0.98), 0.9), ("relu6", (0.0, 6.0), 5.9),
     ("hardtanh", (-1.0, 1.0), 0.9), ("elu", (-0.96, -0.99), -0.9), ("gelu", (-0.001, 0.0), 0.1)],
)  # fmt: skip
def test_flat_parts(function, flat, steep):
    y = torch.tensor([[flat[0], steep], [flat[1], steep]])
    assert dead(y, function=function).dead() == (0,)


@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "hardswish"])
def test_a_unit_of_small_inputs_is_not_dead(name):
    x = torch.tensor([[0.001], [-0.001]], requires_grad=True)
    y = getattr(torch.nn.functional, name)(x)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    assert (derivative > 0.49).all()
    assert dead(y.detach(), function=name).dead() == ()


@pytest.mark.parametrize(
    ("name", "function"),
    [("sigmoid", torch.sigmoid), ("tanh", torch.tanh), ("softsign", torch.nn.functional.softsign),
     ("elu", torch.nn.functional.elu), ("softplus", torch.nn.functional.softplus)],
)  # fmt: skip
def test_flat_is_where_the_derivative_is_below_a_twentieth_of_its_largest(name, function):
    x = torch.linspace(-20, 20, 100_001, dtype=torch.float64, requires_grad=True)
    y = function(x)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    near = (derivative - 0.05 * derivative.max()).abs() < 1e-9
    assert torch.equal(DEADENING[name](y.detach())[~near], (derivative < 0.05 * derivative.max())[~near])


@pytest.mark.parametrize("name", FLAT_INPUTS)
def test_inputs_are_flat_from_far_below_up_to_where_the_derivative_is_a_twentieth_of_its_largest(name):
    x = torch.linspace(-20, 20, 100_001, dtype=torch.float64, requires_grad=True)
    y = getattr(torch.nn.functional, name)(x)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    flat = (derivative.abs() < 0.05 * derivative.max()).cumprod(0).bool()
    assert abs(int(flat.sum()) - int(FLAT_INPUTS[name](x.detach()).sum())) <= 3  # of 1/2500 each
