"""Tensors of more than 2^31 elements in bfloat16: where 32 bits do not hold an offset. Small ones on the CPU.

Where a sample's bits do not depend on the batch around it, they are those of the sample alone. What is summed
over the batch is summed over gradients of -1, 0 and 1 in the first and the last sample, and 0 in the others:
sums of these are exact.
"""

from __future__ import annotations

import math

import pytest
import torch

from normwright import functional as F

# One after the other, where several processes share the device.
pytestmark = pytest.mark.xdist_group("large")

EPS = 1e-5

# A float32 sum of which no summand passes through more than 2^12 additions, with the roundings around it.
SUMMED = 2.0**-12
HALF_ULP = 2.0**-8

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


@pytest.fixture(autouse=True)
def _given_back():
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the processes beside this one need it too


def beyond(device, sample, layout=torch.contiguous_format):
    """(N, *sample), drawn, with one sample more than the limit has."""
    limit = 2**31 if device.type == "cuda" else 2**15
    shape = (limit // math.prod(sample) + 1, *sample)
    torch.manual_seed(0)
    return torch.empty(shape, dtype=torch.bfloat16, device=device, memory_format=layout).normal_()


def images(device, layout):
    """(N, C, H, W), drawn."""
    return beyond(device, (64, 512, 512) if device.type == "cuda" else (32, 4, 8), LAYOUTS[layout])


def ends(x):
    """The gradient."""
    dy = torch.zeros_like(x)
    for place in (0, -1):
        dy[place] = torch.randint(-1, 2, x.shape[1:], device=x.device).to(x.dtype)
    return dy


def vector(device, *shape):
    """Numbers from 0.5 to 2.5."""
    return torch.linspace(0.5, 2.5, math.prod(shape), device=device).view(shape)


def check_samples(function, x, weight, bias, terms):
    """Forward and backward against those of three samples alone; `terms`: summed in a sample's dweight."""
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
    y, dy = function(*leaves), ends(x)
    dx, *sums = torch.autograd.grad(y, leaves, dy)
    of_ends = []
    for place in (0, len(x) // 2, len(x) - 1):
        alone = [x.detach()[place : place + 1].requires_grad_(), *leaves[1:]]
        one = function(*alone)
        assert torch.equal(y[place], one[0]), place
        of_x, *of_sums = torch.autograd.grad(one, alone, dy[place : place + 1])
        assert torch.equal(dx[place], of_x[0]), place
        of_ends.append(of_sums)
    first, middle, last = of_ends
    assert not any(part.any() for part in middle)
    # of a normalised element, at most some 8, in each of two samples
    assert float((sums[0] - first[0] - last[0]).abs().max()) <= SUMMED * 8 * 2 * terms
    if bias is not None:
        assert torch.equal(sums[1], first[1] + last[1])


@pytest.mark.parametrize("activation", [None, "relu"])
def test_rows(activation, device):
    x = beyond(device, (4096,) if device.type == "cuda" else (256,))
    shape = x.shape[1:]
    options = {"activation": activation}
    weight, bias = vector(device, *shape), vector(device, *shape) - 1
    check_samples(lambda x, w, b: F.layer_norm(x, shape, w, b, EPS, **options), x, weight, bias, 1)


def test_rows_without_a_mean(device):
    x = beyond(device, (4096,) if device.type == "cuda" else (256,))
    shape = x.shape[1:]
    check_samples(lambda x, w: F.rms_norm(x, shape, w, EPS), x, vector(device, *shape), None, 1)


def test_one_row(device):
    x = beyond(device, (1024,)).view(1, -1)
    y = F.layer_norm(x, x.shape[1:], None, None, EPS)
    chunks = [chunk.double() for chunk in x[0].split(2**26)]
    mean = sum(chunk.sum() for chunk in chunks) / x.shape[1]
    variance = sum((chunk - mean).square().sum() for chunk in chunks) / x.shape[1]
    for part in (slice(0, 4096), slice(-4096, None)):
        expected = (x[0, part].double() - mean) * (variance + EPS).rsqrt()
        bound = HALF_ULP * expected.abs() + SUMMED * (1 + expected.abs())
        assert bool(((y[0, part].double() - expected).abs() <= bound).all())


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["group", "instance"])
def test_groups(kind, layout, activation, device):
    x = images(device, layout)
    channels = x.shape[1]
    groups = 8 if kind == "group" else channels
    options = {"activation": activation}
    weight, bias = vector(device, channels), vector(device, channels) - 1
    check_samples(
        lambda x, w, b: F.group_norm(x, groups, w, b, EPS, **options), x, weight, bias, x[0, 0].numel()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels_with_known_moments(layout, device):
    x = images(device, layout)
    mean, variance = vector(device, x.shape[1]) - 1, vector(device, x.shape[1])
    weight, bias = vector(device, x.shape[1]), vector(device, x.shape[1]) - 1
    check_samples(
        lambda x, w, b: F.batch_norm(x, mean, variance, w, b, eps=EPS), x, weight, bias, x[0, 0].numel()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels(layout, device):
    x = images(device, layout)
    channels = x.shape[1]
    weight, bias = vector(device, channels).requires_grad_(), (vector(device, channels) - 1).requires_grad_()
    running = torch.zeros(channels, device=device), torch.ones(channels, device=device)
    y = F.batch_norm(x.requires_grad_(), *running, weight, bias, True, 1.0, EPS)
    dy = ends(x)
    dx, dweight, dbias = torch.autograd.grad(y, [x, weight, bias], dy)

    x = x.detach()
    count = x.numel() // channels
    mean = sum(sample.double().sum((1, 2)) for sample in x) / count
    column = (channels, 1, 1)
    squares = sum((sample.double() - mean.view(column)).square().sum((1, 2)) for sample in x)
    assert bool(((running[0] - mean).abs() <= SUMMED).all())
    assert bool(((running[1] - squares / (count - 1)).abs() <= 2 * SUMMED * squares / count).all())

    rstd = (squares / count + EPS).rsqrt()
    scale = weight.detach().double()

    def normalised(place):
        return (x[place].double() - mean.view(column)) * rstd.view(column)

    along = sum((dy[place] * normalised(place)).sum((1, 2)) for place in (0, -1))
    level = sum(dy[place].double().sum((1, 2)) for place in (0, -1))
    assert torch.equal(dbias.double(), level)
    assert float((dweight - along).abs().max()) <= SUMMED * 8 * 2 * x[0, 0].numel()
    for place in (0, len(x) // 2, -1):
        x_hat = normalised(place)
        expected = x_hat * scale.view(column) + bias.detach().view(column)
        bound = HALF_ULP * expected.abs() + SUMMED * (1 + x_hat.abs()) * scale.view(column)
        assert bool(((y[place] - expected).abs() <= bound).all()), place
        parts = dy[place].double(), -(level / count).view(column), -x_hat * (along / count).view(column)
        of_x = sum(parts) * (rstd * scale).view(column)
        size = sum(part.abs() for part in parts) * (rstd * scale).view(column)
        bound = HALF_ULP * of_x.abs() + SUMMED * (1 + x_hat.abs()) * size
        assert bool(((dx[place] - of_x).abs() <= bound).all()), place


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts(layout, device):
    """The last two samples are a part of their own, beyond the limit."""
    x = images(device, layout)
    channels, column = x.shape[1], (x.shape[1], 1, 1)
    weight, bias = vector(device, channels).requires_grad_(), (vector(device, channels) - 1).requires_grad_()
    domains = (torch.arange(len(x), device=device) >= len(x) - 2).long()
    apart = [(None, None, None)] * 2
    y = F.split_batch_norm(x.requires_grad_(), domains, apart, weight, bias, True, eps=EPS)
    dy = ends(x)
    dx, dbias = torch.autograd.grad(y, [x, bias], dy)
    assert torch.equal(dbias.double(), dy[0].double().sum((1, 2)) + dy[-1].double().sum((1, 2)))

    last = x.detach()[-2:].double().requires_grad_()
    variance, mean = torch.var_mean(last, (0, 2, 3), correction=0, keepdim=True)
    x_hat = (last - mean) * (variance + EPS).rsqrt()
    scale = weight.detach().double().view(column)
    expected = x_hat * scale + bias.detach().view(column)
    (of_x,) = torch.autograd.grad(expected, last, dy[-2:].double())
    bound = HALF_ULP * expected.abs() + SUMMED * (1 + x_hat.abs()) * scale
    assert bool(((y[-2:] - expected).abs() <= bound).all())
    # |dy| and its means, with x_hat and without, are at most 1.
    size = (1 + x_hat.abs()).square() * scale * (variance + EPS).rsqrt()
    assert bool(((dx[-2:] - of_x).abs() <= HALF_ULP * of_x.abs() + 2 * SUMMED * size).all())
