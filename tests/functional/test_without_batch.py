"""Filter response norm and maxout against the float64 reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tolerances import UNIT, Analysis, assert_within, depth, rounded

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.functional import dynamic_tanh, filter_response_norm, maxout
from normwright.reference import axes_of, fused_backward
from normwright.reference import filter_response_norm as reference
from normwright.reference import maxout as reference_maxout

EPS = 2.0**-7
# The last is large enough that channels-last samples are taken where they lie.
SHAPES = [(3, 4, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2), (2, 8, 24, 24)]
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
]
LAYOUTS = ["contiguous", "channels-last", "sliced"]


def call_of(shape, dtype, parameters, layout="contiguous"):
    draw = torch.Generator().manual_seed(0)
    x = (torch.rand(shape, generator=draw, dtype=torch.float64) * 6 - 2).to(dtype)
    if layout == "channels-last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "sliced":
        x = x.repeat_interleave(2, -1)[..., ::2]
    vectors = [torch.rand(shape[1], generator=draw, dtype=torch.float64) * 4 - 2 for _ in range(3)]
    return x, [vector.to(parameters) for vector in vectors]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "parameters"), DTYPES, ids=str)
@pytest.mark.parametrize("tlu", [True, False])
def test_filter_response_norm(shape, layout, dtype, parameters, tlu):
    x, (weight, bias, threshold) = call_of(shape, dtype, parameters, layout)
    threshold = threshold if tlu else None
    y = filter_response_norm(x, weight, bias, threshold, EPS)
    assert y.dtype == dtype
    if layout != "sliced":
        assert y.stride() == torch.empty_like(x).stride()
    arrays = [None if part is None else part.double().numpy() for part in (x, weight, bias, threshold)]
    axes = axes_of("instance", shape)
    rstd = 1 / np.sqrt((arrays[0] ** 2).mean(axes.reduce, keepdims=True) + EPS)
    analysis = Analysis(arrays[0], axes, *arrays[1:3], None, 0 * rstd, rstd, None, dtype, center=False)
    bound = analysis.y()
    if tlu and dtype != parameters:  # τ is rounded to y's dtype
        bound = np.maximum(bound, rounded(arrays[3], dtype).reshape(-1, *[1] * (len(shape) - 2)))
    assert_within(y, reference(*arrays, EPS), bound, "y")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", [None, "silu"])
def test_filter_response_norm_s_derivatives(layout, activation):
    x, vectors = call_of((2, 3, 2, 3), torch.float64, torch.float64, layout)
    eps, residual = torch.tensor(0.3, dtype=torch.float64), torch.ones_like(x)
    leaves = [part.detach().requires_grad_() for part in (x, *vectors, eps, residual)]

    def call(x, weight, bias, threshold, eps, residual):
        epilogue = {"residual": residual, "activation": activation}
        return filter_response_norm(x, weight, bias, threshold, eps, **epilogue)

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("given", [(), ("weight",), ("threshold",), ("bias", "threshold")], ids="+".join)
def test_the_derivatives_by_a_learned_eps_and_what_is_given(given, layout):
    x, vectors = call_of((2, 3, 2, 3), torch.float64, torch.float64, layout)
    named = dict(zip(("weight", "bias", "threshold"), vectors, strict=True))
    tensors = {"input": x, "eps": torch.tensor(0.3).double()} | {name: named[name] for name in given}
    leaves = [part.detach().requires_grad_() for part in tensors.values()]

    def call(*parts):
        return filter_response_norm(**dict(zip(tensors, parts, strict=True)))

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "parameters"), DTYPES, ids=str)
def test_what_the_unit_lets_through_and_what_its_threshold_gets(shape, layout, dtype, parameters):
    """Those of a ReLU of z - τ, where none are equal; the threshold gets the dy that these have not."""
    x, vectors = call_of(shape, dtype, parameters, layout)
    wide, weight, bias, threshold = (part.double().numpy() for part in (x, *vectors))
    axes = axes_of("instance", shape)
    rstd = 1 / np.sqrt((wide**2).mean(axes.reduce, keepdims=True) + EPS)
    moved = {"weight": weight, "bias": bias - threshold, "residual": None, "activation": "relu"}
    analysis = Analysis(wide, axes, mean=0 * rstd, rstd=rstd, dtype=dtype, center=False, **moved)
    dy = torch.rand(shape, generator=torch.Generator().manual_seed(1)).sub(0.25).to(dtype)
    dy = dy.masked_fill(torch.tensor(analysis.kink()), 0)
    given = dy.double().numpy()
    dx, _, dweight, dbias = fused_backward(given, axes=axes, x=wide, eps=EPS, center=False, **moved)
    bounds = analysis.gradients(given, parameters)
    along = tuple(axis for axis in range(len(shape)) if axis != 1)
    dthreshold, terms = given.sum(along) - dbias, np.abs(given).sum(along)
    e_dthreshold = (
        bounds.dbias + depth(x[:, 0].numel()) * analysis.u * terms + rounded(dthreshold, parameters)
    )

    leaves = [part.detach().requires_grad_() for part in (x, *vectors)]
    found = torch.autograd.grad(filter_response_norm(*leaves, EPS), leaves, dy)
    errors = (bounds.dx, bounds.dweight, bounds.dbias, e_dthreshold)
    names = ("dx", "dweight", "dbias", "dthreshold")
    for part, *rest in zip(found, (dx, dweight, dbias, dthreshold), errors, names, strict=True):
        assert_within(part, *rest)


def unit_of(x, weight, bias, threshold):
    """The formula as it stands in a book; where the two are equal, the threshold's gradient."""
    axes, column = tuple(range(2, x.dim())), (-1, *[1] * (x.dim() - 2))
    z = x / (x.square().mean(axes, keepdim=True) + EPS).sqrt()
    z = z * weight.view(column) + bias.view(column)
    return torch.where(z > threshold.view(column), z, threshold.view(column))


@pytest.mark.parametrize("level", [-1e8, -1e30, -math.inf, 0.5, 1e8, math.inf])
@pytest.mark.parametrize(("dtype", "parameters"), DTYPES, ids=str)
def test_the_unit_is_exact_for_every_threshold(level, dtype, parameters):
    x, (weight, bias, _) = call_of((2, 3, 4, 5), dtype, parameters)
    threshold = torch.full((3,), level).to(parameters)
    z = filter_response_norm(x, weight, bias, None, EPS)
    expected = torch.maximum(z, threshold.to(dtype).view(-1, 1, 1))
    assert torch.equal(filter_response_norm(x, weight, bias, threshold, EPS), expected)
    leaves = [part.detach().requires_grad_() for part in (x, weight, bias, threshold)]
    y = filter_response_norm(*leaves, EPS)
    assert torch.equal(y, expected)
    dx, dweight, dbias, dthreshold = torch.autograd.grad(y.sum(), leaves)
    if abs(level) < 1:
        return
    whole = float(x[:, 0].numel())  # of ones: these sums are exact
    assert torch.equal(dbias, torch.full_like(bias, whole if level < 0 else 0.0))
    assert torch.equal(dthreshold, torch.full_like(bias, 0.0 if level < 0 else whole))
    assert bool(dx.any()) == bool(dweight.any()) == (level < 0)


@pytest.mark.parametrize("level", [-1e8, -math.inf])
def test_a_transform_s_formula_keeps_what_a_low_threshold_lets_through(level):
    x, (weight, bias, _) = call_of((2, 3, 4, 5), torch.float64, torch.float64)
    threshold = torch.full((3,), level).double()
    y = filter_response_norm(x, weight, bias, None, EPS)
    found = torch.func.vmap(lambda x: filter_response_norm(x[None], weight, bias, threshold, EPS)[0])(x)
    assert float((found - y).abs().max()) <= 16 * UNIT[torch.float64] * float(y.abs().max())


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "parameters"), DTYPES, ids=str)
def test_the_threshold_has_the_gradient_of_equals(dtype, parameters, layout, again):
    """A z that is its bias is its threshold too, to the bit, where x is 0."""
    x, (weight, _, threshold) = call_of((2, 3, 4, 5), dtype, parameters, layout)
    # Elsewhere z lies far from the threshold: the mean square is 4 at most.
    x = torch.where(x.abs() > 1, 2 * x.sign(), 0)
    assert len(x.unique()) == 3
    weight = 1 + weight.abs()
    leaves = [part.detach().requires_grad_() for part in (x, weight, threshold, threshold.clone())]
    dy = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).sub(0.25).to(dtype)
    found = torch.autograd.grad(filter_response_norm(*leaves, EPS), leaves, dy, create_graph=again)
    wide = [part.detach().double().requires_grad_() for part in leaves]
    expected = torch.autograd.grad(unit_of(*wide), wide, dy.double())
    to_z = dy.double() * (x > 0)
    torch.testing.assert_close(expected[2], to_z.sum((0, 2, 3)))
    for part, other, of in zip(found, expected, ("x", "weight", "bias", "threshold"), strict=True):
        # A sum of 40 products of a dozen roundings, and the rounding of what comes out.
        unit = UNIT[torch.float64 if dtype == torch.float64 else torch.float32]
        bound = (depth(40) + 12) * unit * 40 + 2 * UNIT[part.dtype] * float(other.abs().max())
        assert float((part.detach().double() - other).abs().max()) <= bound, of


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)], ids=str)
def test_a_learned_eps_of_one_number_has_a_gradient_of_its_shape(shape):
    eps = torch.full(shape, 0.1, requires_grad=True)
    x = torch.tensor([[[1.0, -2.0, 3.0]]])
    filter_response_norm(x, None, None, torch.zeros(1), eps).sum().backward()
    assert eps.grad.shape == shape
    assert eps.grad.item() != 0


@pytest.mark.parametrize("level", [math.nan, 0.5])
def test_a_nan_is_the_unit_s_output_by_either_way(level):
    x, threshold = torch.tensor([[[1.0, -2.0, 3.0]], [[1.0, math.nan, 3.0]]]), torch.tensor([level])
    y = filter_response_norm(x, None, None, threshold, EPS)
    found = torch.func.vmap(lambda x: filter_response_norm(x[None], None, None, threshold, EPS)[0])(x)
    torch.testing.assert_close(found, y, equal_nan=True, rtol=0, atol=8 * UNIT[torch.float32])
    assert y.isnan().sum() == (6 if math.isnan(level) else 3)


def test_an_infinite_gradient_does_not_come_through_a_closed_unit():
    x = torch.tensor([[[3.0, -3.0, 0.0]]], requires_grad=True)
    zero = torch.zeros(1)
    dy = torch.tensor([[[1.0, math.inf, 1.0]]])
    (dx,) = torch.autograd.grad(filter_response_norm(x, None, zero, zero), x, dy)
    assert dx.isfinite().all()


def test_filter_response_norm_s_invariants():
    x, (weight, bias, _) = call_of((2, 3, 4, 5), torch.float64, torch.float64)
    y = filter_response_norm(x, eps=1e-300)
    torch.testing.assert_close(y.square().mean((2, 3)), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(filter_response_norm(7 * x, eps=1e-300), y)  # by scale, not by shift
    assert not torch.allclose(filter_response_norm(x + 1, eps=1e-300), y)
    alone = filter_response_norm(x[:1], weight, bias)
    assert torch.equal(filter_response_norm(x, weight, bias)[:1], alone)


def test_an_empty_batch():
    weight = torch.ones(3, requires_grad=True)
    y = filter_response_norm(torch.empty(0, 3, 4, 4), weight)
    y.sum().backward()
    assert y.shape == (0, 3, 4, 4)
    assert not weight.grad.any()


@pytest.mark.parametrize("pieces", [1, 2, 3, 6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_maxout(pieces, dtype):
    x = torch.randn(2, 6, 3, dtype=torch.float64).to(dtype)
    y = maxout(x, pieces)
    assert np.array_equal(y.double().numpy(), reference_maxout(x.double().numpy(), pieces))
    assert torch.equal(maxout(x.movedim(1, -1), pieces, axis=-1), y.movedim(1, -1))
    leaf = (torch.randperm(x.numel()).view(x.shape).double() / 8).requires_grad_()  # no two are equal
    assert torch.autograd.gradcheck(lambda x: maxout(x, pieces), leaf, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: maxout(x, pieces), leaf)
    assert torch.autograd.gradcheck(lambda x: maxout(x, pieces, axis=-1), leaf.movedim(1, -1))


def test_maxout_shares_the_gradient_of_equals():
    for pieces in (2, 4):
        x = torch.ones(1, 4, requires_grad=True)
        maxout(x, pieces).sum().backward()
        assert torch.equal(x.grad, torch.full((1, 4), 1 / pieces))


def test_bad_calls():
    x = torch.randn(2, 3, 4)
    for call, error, message in (
        (lambda: filter_response_norm(x[:, :, 0]), ShapeError, "more than one position"),
        (lambda: filter_response_norm(x[:, :, :1]), ShapeError, "lost where x² is far above eps"),
        (lambda: filter_response_norm(x[:, :, :1]), ShapeError, "Use layer or batch norm there"),
        (lambda: filter_response_norm(x, torch.ones(4)), ShapeError, r"weight must be \(3,\)"),
        (lambda: filter_response_norm(x, None, None, torch.ones(4)), ShapeError, r"threshold must be \(3,\)"),
        (lambda: filter_response_norm(x, eps=0.0), OptionError, "eps must be above 0"),
        (lambda: filter_response_norm(x, activation="rely"), OptionError, "did you mean 'relu'"),
        (lambda: filter_response_norm(x.int()), DtypeError, "not implemented for 'Int'"),
        (lambda: filter_response_norm(x, torch.ones(3).double()), DtypeError, "mixed dtype"),
        (lambda: dynamic_tanh(x, weight=torch.ones(3)), ShapeError, r"weight must be \(4,\)"),
        (lambda: dynamic_tanh(x, axis=3), ShapeError, "one of the 3 axes"),
        (
            lambda: dynamic_tanh(x, torch.tensor(1)),
            DtypeError,
            "alpha must be floating point, but is torch.int",
        ),
        (
            lambda: dynamic_tanh(x, torch.tensor(1j)),
            DtypeError,
            "alpha must be floating point, but is torch.c",
        ),
        (lambda: dynamic_tanh(x, torch.tensor(True)), DtypeError, "alpha must be floating point"),
        (lambda: dynamic_tanh(x, True), DtypeError, "alpha must be a real number"),
        (lambda: dynamic_tanh(x, 1j), DtypeError, "alpha must be a real number"),
        (lambda: dynamic_tanh(x, torch.ones(2)), ShapeError, "alpha must be a scalar"),
        (lambda: filter_response_norm(x, eps=torch.tensor(1)), DtypeError, "eps must be floating point"),
        (lambda: filter_response_norm(x, eps=torch.ones(3)), ShapeError, "eps must be a scalar"),
        (lambda: dynamic_tanh(x.int()), DtypeError, "not implemented for 'Int'"),
        (lambda: maxout(x, 2), ShapeError, "2 does not divide the 3 of axis 1"),
        (lambda: maxout(x, 0), OptionError, "at least 1 and a whole number"),
        (lambda: maxout(x, 2, axis=5), ShapeError, "one of the 3 axes"),
    ):
        with pytest.raises(error, match=message):
            call()
