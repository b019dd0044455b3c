"""Batch renorm against the float64 formula of its paper, and against batch norm at its two ends."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from tolerances import RUNNING, SAME_DERIVATIVE, UNIT, Analysis, assert_within, renormalised

from normwright.errors import OptionError, ShapeError
from normwright.functional import batch_norm, batch_renorm
from normwright.reference import axes_of, moments
from normwright.reference import batch_renorm as reference
from normwright.reference import batch_renorm_backward as reference_backward

EPS = 2.0**-7
SHAPES = [(7, 3), (4, 3, 5), (3, 6, 4, 5), (2, 4, 3, 2, 5)]
LIMITS = [(3.0, 5.0), (1.25, 0.25), (1.0, 0.0)]


def call_of(shape, dtype, parameters, layout="contiguous"):
    draw = torch.Generator().manual_seed(0)
    channels = shape[1]
    x = torch.rand(shape, generator=draw, dtype=torch.float64) * 6 - 2
    if layout == "channels-last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    vectors = [torch.rand(channels, generator=draw, dtype=torch.float64) for _ in range(4)]
    mean, variance, weight, bias = vectors[0] * 3, vectors[1] * 4 + 0.2, vectors[2] * 4 - 2, vectors[3]
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    dy = (torch.rand(shape, generator=draw, dtype=torch.float64) * 2 - 1).to(dtype)
    return x.to(dtype), dy, mean.to(kept), variance.to(kept), weight.to(parameters), bias.to(parameters)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize(
    ("dtype", "parameters"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16),
     (torch.float16, torch.float32)],
    ids=str,
)  # fmt: skip
def test_forward_gradients_and_statistics(shape, limits, layout, dtype, parameters):
    x, dy, mean, variance, weight, bias = call_of(shape, dtype, parameters, layout)
    options = {"eps": EPS, "r_max": limits[0], "d_max": limits[1]}
    arrays = [tensor.double().numpy() for tensor in (x, mean, variance, weight, bias)]
    expected = reference(*arrays, momentum=0.3, **options)
    expected_gradients = reference_backward(dy.double().numpy(), *arrays[:4], **options)

    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    y = batch_renorm(leaves[0], mean, variance, *leaves[1:], True, 0.3, **options)
    gradients = torch.autograd.grad(y, leaves, dy)
    assert y.dtype == dtype
    assert y.stride() == torch.empty_like(x).stride()

    axes = axes_of("batch", shape)
    batch = moments(arrays[0], axes)
    wide = [np.expand_dims(moment, axes.reduce) for moment in batch]
    by_d = expected.d * arrays[3]
    analysis = Analysis(
        arrays[0], axes, expected.r * arrays[3], by_d + arrays[4], None,
        wide[0], 1 / np.sqrt(wide[1] + EPS), None, dtype,
    )  # fmt: skip
    bounds = renormalised(analysis, dy.double().numpy(), by_d, expected.r, expected.d, parameters)
    assert_within(y, expected.y, bounds.y, "y")
    for name, gradient in zip(("dx", "dweight", "dbias"), gradients, strict=True):
        bound = getattr(bounds, name)
        if name == "dbias":  # handed on through float32, and rounded to the parameter's own dtype
            bound = bound + UNIT[parameters] * np.abs(expected_gradients.dbias)
        assert_within(gradient, getattr(expected_gradients, name), bound, name)

    kept = RUNNING[mean.dtype]
    scale = np.abs(arrays[1]) + np.abs(batch.mean)
    assert_within(mean, expected.running_mean, kept * scale, "running_mean")
    # σ², where σ is an average of roots with a rounding each: twice its relative error, and eps taken away
    scale = expected.running_var + EPS + arrays[2] + batch.variance
    assert_within(variance, expected.running_var, 4 * kept * scale, "running_var")


def test_without_clipping_training_computes_what_inference_does():
    x, _, mean, variance, weight, bias = call_of((5, 3, 7), torch.float64, torch.float64)
    inference = batch_norm(x, mean, variance, weight, bias, eps=EPS)
    free = {"r_max": math.inf, "d_max": math.inf}
    y = batch_renorm(x, mean.clone(), variance.clone(), weight, bias, True, eps=EPS, **free)
    assert float((y - inference).abs().max()) <= SAME_DERIVATIVE * float(inference.abs().max())
    none = batch_renorm(x, mean, variance, weight, bias, eps=EPS)
    assert torch.equal(none, inference)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_clipped_to_nothing_it_is_batch_norm_to_the_bit(dtype):
    x, dy, mean, variance, weight, bias = call_of((5, 3, 7), dtype, dtype)
    results = []
    for function in (
        lambda *leaves: batch_norm(leaves[0], None, None, *leaves[1:], True, eps=EPS, activation="silu"),
        lambda *leaves: batch_renorm(
            leaves[0], mean.clone(), variance.clone(), *leaves[1:], True,
            eps=EPS, r_max=1.0, d_max=0.0, activation="silu",
        ),
    ):  # fmt: skip
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
        y = function(*leaves)
        results.append([y, *torch.autograd.grad(y, leaves, dy)])
    assert all(map(torch.equal, *results))


def test_no_gradient_flows_through_r_and_d():
    """Differentiated through them, y unclipped would be affine in x and dx simply dy·γ/σ."""
    x, dy, mean, variance, weight, bias = call_of((5, 3), torch.float64, torch.float64)
    leaf = x.clone().requires_grad_()
    free = {"r_max": math.inf, "d_max": math.inf}
    y = batch_renorm(leaf, mean, variance.clone(), weight, bias, True, eps=EPS, **free)
    (dx,) = torch.autograd.grad(y, leaf, dy)
    assert float(dx.sum(0).abs().max()) <= 1e-14  # the component along 1 is taken away
    assert float((dy * weight / (variance + EPS).sqrt()).sum(0).abs().max()) > 0.1


def test_double_backward():
    x, _, mean, variance, weight, bias = call_of((4, 3, 3), torch.float64, torch.float64)

    def call(x, weight, bias):
        free = {"r_max": 1.1, "d_max": 0.1}
        return batch_renorm(x, mean.clone(), variance.clone(), weight, bias, True, eps=EPS, **free)

    # By x the numerical derivative would follow r and d, which move with it where they are not clipped.
    leaves = [tensor.requires_grad_() for tensor in (weight, bias)]
    assert torch.autograd.gradcheck(lambda *rest: call(x, *rest), leaves)
    assert torch.autograd.gradgradcheck(lambda *rest: call(x, *rest), leaves)


def test_the_cumulative_mean_counts_the_batches():
    x, _, mean, variance, weight, bias = call_of((6, 3), torch.float64, torch.float64)
    counted = torch.tensor(3)
    before = mean.clone()
    batch_renorm(x, mean, variance, weight, bias, True, None, EPS, num_batches_tracked=counted)
    assert counted == 4
    torch.testing.assert_close(mean, before + (x.mean(0) - before) / 4)


def test_bad_calls_leave_the_statistics():
    x, _, mean, variance, *_ = call_of((6, 3), torch.float32, torch.float32)
    before = copy.deepcopy((mean, variance))
    for given, options, error, message in (
        ((x[:1], mean, variance), {}, ShapeError, "Expected more than 1 value per channel"),
        ((x, None, None), {}, OptionError, "running_mean and running_var must be given"),
        ((x, mean, variance), {"r_max": 0.5}, OptionError, "r_max must be at least 1, but is 0.5"),
        ((x, mean, variance), {"d_max": -1.0}, OptionError, r"d_max must be at least 0, but is -1\.0"),
        ((x, mean, variance), {"momentum": None}, OptionError, "needs num_batches_tracked"),
        ((x, mean, variance), {"activation": "rely"}, OptionError, "did you mean 'relu'"),
    ):
        with pytest.raises(error, match=message):
            batch_renorm(*given, training=True, **options)
    assert torch.equal(mean, before[0])
    assert torch.equal(variance, before[1])


def test_an_empty_batch_moves_nothing():
    mean, variance = torch.zeros(3), torch.ones(3)
    weight = torch.ones(3, requires_grad=True)
    y = batch_renorm(torch.empty(0, 3, 2), mean, variance, weight, training=True)
    y.sum().backward()
    assert y.shape == (0, 3, 2)
    assert not weight.grad.any()
    assert torch.equal(mean, torch.zeros(3))
    assert torch.equal(variance, torch.ones(3))
