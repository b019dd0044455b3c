"""Inputs on which a careless formula overflows, cancels, or lets one bad element spoil the others."""

import math

import numpy as np
import pytest
import torch
from cases import ABOUT_ZERO, KINDS, Call, case_of
from tolerances import UNIT, assert_within, depth

from normwright.functional import batch_norm, layer_norm

REDUCING = tuple(kind for kind in KINDS if not kind.endswith("eval"))
CENTRED = tuple(kind for kind in REDUCING if kind not in ABOUT_ZERO)
SHAPE = (2, 6, 5, 7)


def gradients(call, y):
    parameters = [call.weight] if call.bias is None else [call.weight, call.bias]
    return torch.autograd.grad(y, [call.x, *parameters], call.dy)


def with_input(kind, x, **options):
    affine = "weight" if kind == "rms" else "weight and bias"
    call = Call(case_of(kind, tuple(x.shape), x.dtype, affine=affine, **options))
    call.x = x.detach().requires_grad_()
    for parameter in (call.weight, call.bias):
        if parameter is not None:
            parameter.requires_grad_()
    return call


def draw(seed=1, dtype=torch.float32):
    return torch.randn(SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def assert_right(call):
    y = call.run(call.x, None, call.weight, call.bias)
    dy = call.dy.double().numpy()
    expected, bounds = call.expected(dy), call.analysis.gradients(dy, call.parameter_dtype)
    assert_within(y, expected.y, bounds.y, "y")
    for what, gradient in zip(("dx", "dweight", "dbias"), gradients(call, y), strict=False):
        assert gradient.isfinite().all()
        assert_within(gradient, getattr(expected, what), getattr(bounds, what), what)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("ratio", [1e3, -1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mean_far_from_zero(kind, ratio, dtype):
    # steps of 1/16 in deviation 1 are what float32 can hold around a million
    call = with_input(kind, (draw() * 16).round().div(16).to(dtype) + ratio)
    call.running_mean += ratio
    assert_right(call)


@pytest.mark.parametrize("length", [5, 20001])
def test_constant_rows_whose_mean_is_too_large_for_their_scale(length):
    """Beyond the end of an odd row nothing is, least of all a zero that deviates from its mean."""
    x = torch.full((3, length), 1e34, requires_grad=True)
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    layer_norm(x, (length,), eps=1e-12).backward(dy)
    expected = 1e6 * (dy.double() - dy.double().mean(1, keepdim=True))
    limit = (depth(length) + 4) * UNIT[torch.float32] * 1e6 * 2 * float(dy.abs().max())
    assert float((x.grad.double() - expected).abs().max()) <= limit


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e19, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_magnitudes_whose_squares_overflow_or_vanish(kind, scale):
    assert_right(with_input(kind, draw() * scale))


@pytest.mark.parametrize("kind", CENTRED)
def test_a_mean_of_1e30_and_a_deviation_of_1e24(kind):
    assert_right(with_input(kind, draw() * 1e24 + 1e30))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", CENTRED)
def test_a_constant_class_becomes_the_bias(kind, dtype):
    # 4/3 and the odd sizes: neither the value nor its sums are round numbers
    call = with_input(kind, torch.full(SHAPE, 4 / 3, dtype=dtype))
    y = call.run(call.x, None, call.weight, call.bias)
    bias = call.bias.reshape(call.axes.parameter_shape)
    assert torch.equal(y, bias.expand(call.axes.view).reshape(SHAPE))
    dx, dweight, _ = gradients(call, y)
    assert dx.isfinite().all()
    assert torch.equal(dweight, torch.zeros_like(dweight))


def poisoned(call, index):
    """Which elements share a moment with x[index], and which parameters see one of those."""
    axes = call.axes
    touched = np.zeros(SHAPE, dtype=bool)
    touched[index] = True
    touched = touched.reshape(axes.view)
    if call.kind.endswith("eval"):
        classes = touched
    else:
        classes = np.broadcast_to(touched.any(axis=axes.reduce, keepdims=True), axes.view)
    parameters = classes.any(axis=axes.shared).reshape(axes.weight_shape)
    return torch.tensor(classes.reshape(SHAPE)), torch.tensor(parameters)


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_stays_in_its_class(kind, poison, layout):
    index = (1, 2, 3, 4)
    sound = draw()
    bad = sound.clone()
    bad[index] = poison
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    results = []
    for x in (sound, bad):
        call = with_input(kind, x.contiguous(memory_format=formats[layout]), activation="silu")
        y = call.run(call.x, None, call.weight, call.bias)
        results.append((y, *gradients(call, y)))
    elements, parameters = poisoned(call, index)
    for before, after in zip(*results, strict=True):
        spoilt = elements if before.shape == elements.shape else parameters
        assert torch.equal(before[~spoilt], after[~spoilt])
    assert math.isfinite(poison) or not results[1][0][elements].isfinite().all()
    assert results[0][0].isfinite().all()


@pytest.mark.parametrize("kind", REDUCING)
def test_a_relu_does_not_hide_a_nan(kind):
    x = draw()
    x[0, 0, 0, 0] = math.nan
    call = with_input(kind, x, activation="relu")
    y = call.run(call.x, None, call.weight, call.bias)
    assert y[0, 0, 0, 0].isnan()
    assert gradients(call, y)[0][0, 0, 0, 0].isnan()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_the_gradient_at_a_nan_is_pytorchs(activation):
    z = torch.tensor([[[math.nan, -1.0, 0.0, 2.0]]])
    ours, theirs = (z.clone().requires_grad_() for _ in range(2))
    zeros, ones = torch.zeros(1), torch.ones(1)
    batch_norm(torch.zeros_like(z), zeros, ones, residual=ours, activation=activation).sum().backward()
    getattr(torch.nn.functional, activation)(theirs).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("size", [1e5, 1e30, 1e38])
def test_silu_of_what_is_far_below_zero_is_zero(size):
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    residual = torch.full_like(x, -size).requires_grad_()
    y = layer_norm(x, (16,), residual=residual, activation="silu")
    (gradient,) = torch.autograd.grad(y.sum(), residual)
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_an_incomplete_row_of_pixels_keeps_to_its_channels():
    """Channels-last with few channels, several pixels are taken as one row, and the last row is not whole."""
    x = torch.randn(1, 3, 11, 11, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 1e37
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.ones(3, requires_grad=True)
    y = batch_norm(x, None, None, weight, torch.zeros(3), training=True, activation="silu")
    gradients = torch.autograd.grad(y, (x, weight), torch.ones_like(y))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("space", [(5, 7), (9, 9)], ids=str)
def test_in_inference_a_bad_element_takes_a_finite_gradient(space, memory_format, bad):
    # the moments are constants, so that dx is dy·weight·rstd, whatever x is
    generator = torch.Generator().manual_seed(3)
    x, dy = (torch.randn(2, 6, *space, generator=generator) for _ in range(2))
    x[1, 2, 3, 4] = bad
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(6, generator=generator)
    y = batch_norm(x, torch.zeros(6), torch.full((6,), 4.0), weight, None, eps=0.0)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert torch.equal(dx, dy * (weight * 0.5).view(1, 6, 1, 1))


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_one_whose_gradient_is_a_slice_of_pixels(training):
    """PyTorch 2.13's batch norm sums other elements for the bias then, as in RT-DETR on the CPU."""
    generator = torch.Generator().manual_seed(2)
    x, weight, bias, mean, pixels = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((1, 6, 5, 7), 6, 6, 6, (1, 60, 6))
    )
    dy = pixels[:, 10:45].transpose(1, 2).unflatten(2, (5, 7))  # channels-last but for the batch's stride
    inputs = [part.requires_grad_() for part in (x, weight, bias)]
    y = batch_norm(x, mean, torch.full_like(mean, 2.0), weight, bias, training)
    found = torch.autograd.grad(y, inputs, dy, retain_graph=True)
    assert torch.allclose(found[2], dy.sum((0, 2, 3)), rtol=1e-12)
    for one, other in zip(found, torch.autograd.grad(y, inputs, dy.contiguous()), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)
