"""Batch norm over parts of a batch, virtual batches and domains, against the float64 reference."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from tolerances import RUNNING, UNIT, Analysis, assert_within

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.functional import batch_norm, ghost_batch_norm, split_batch_norm
from normwright.reference import axes_of, moments, virtual_batches
from normwright.reference import split_batch_norm as reference
from normwright.reference import split_batch_norm_backward as reference_backward

EPS = 2.0**-7
SHAPES = [(6, 3), (6, 3, 5), (6, 4, 3, 4), (6, 2, 3, 2, 3)]
DTYPES = [
    (torch.float64, torch.float64),
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
]
LAYOUTS = ["contiguous", "channels-last", "sliced"]
# Large enough that parts and samples are left where they lie.
LARGE = (6, 8, 24, 24)
DOMAINS = torch.tensor([1, 0, 1, 2, 0, 2])


def ghost(x, weight, bias, **options):
    return ghost_batch_norm(x, None, None, weight, bias, True, eps=EPS, ghost_size=2, **options)


def split(x, weight, bias, **options):
    return split_batch_norm(x, DOMAINS, [(None, None, None)] * 3, weight, bias, True, eps=EPS, **options)


def halves(x, weight, bias, **options):
    domains = torch.tensor([2, 2, 0, 0, 0, 0])
    return split_batch_norm(x, domains, [(None, None, None)] * 3, weight, bias, True, eps=EPS, **options)


CASES = {
    "ghost": (ghost, virtual_batches(6, 2)),
    "split": (split, DOMAINS.numpy()),
    "halves": (halves, np.array([2, 2, 0, 0, 0, 0])),
}


def call_of(shape, dtype, parameters, layout="contiguous", level=0.0):
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=draw, dtype=torch.float64) * 6 - 2 + level
    dy = torch.rand(shape, generator=draw, dtype=torch.float64) * 2 - 1
    weight, bias = (torch.rand(shape[1], generator=draw, dtype=torch.float64) * 4 - 2 for _ in range(2))
    x = x.to(dtype)
    if layout == "channels-last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "sliced":
        x = x.repeat_interleave(2, -1)[..., ::2]
    return x, dy.to(dtype), weight.to(parameters), bias.to(parameters)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [*SHAPES, LARGE], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "parameters"), DTYPES, ids=str)
@pytest.mark.parametrize("level", [0.0, 200.0])
def test_forward_and_gradients(case, shape, layout, dtype, parameters, level):
    function, domains = CASES[case]
    x, dy, weight, bias = call_of(shape, dtype, parameters, layout, level)
    arrays = [tensor.double().numpy() for tensor in (x, weight, bias)]
    leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
    y = function(*leaves)
    gradients = torch.autograd.grad(y, leaves, dy)
    assert y.dtype == dtype
    if case == "ghost" and layout != "sliced":
        assert y.stride() == torch.empty_like(x).stride()

    expected = reference(arrays[0], domains, *arrays[1:], EPS)
    wide_dy = dy.double().numpy()
    expected_gradients = reference_backward(wide_dy, arrays[0], domains, arrays[1], EPS)
    e_y, e_dx = np.empty(shape), np.empty(shape)
    e_dweight, e_dbias = (UNIT[parameters] * np.abs(part) for part in expected_gradients[1:])
    for label in np.unique(domains):
        rows = domains == label
        axes = axes_of("batch", x[rows].shape)
        mean, variance = (np.expand_dims(part, axes.reduce) for part in moments(arrays[0][rows], axes))
        call = (arrays[0][rows], axes, arrays[1], arrays[2], None, mean, 1 / np.sqrt(variance + EPS), None)
        bounds = Analysis(*call, dtype).gradients(wide_dy[rows], parameters)
        e_y[rows], e_dx[rows] = bounds.y, bounds.dx
        # Summed once more over the parts, in float32 or wider.
        e_dweight, e_dbias = e_dweight + 2 * bounds.dweight, e_dbias + 2 * bounds.dbias
    assert_within(y, expected, e_y, "y")
    assert_within(gradients[0], expected_gradients.dx, e_dx, "dx")
    assert_within(gradients[1], expected_gradients.dweight, e_dweight, "dweight")
    assert_within(gradients[2], expected_gradients.dbias, e_dbias, "dbias")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [2.0**100, 2.0**-20])
def test_a_large_batch_of_any_magnitude(case, layout, size):
    """dx in float32 is that in float64, to within roundings of a channel's largest."""
    x, dy, weight, bias = call_of(LARGE, torch.float32, torch.float32, layout)
    # In the first channel only: another must not be harmed by what that one needs.
    scale = torch.ones(8, 1, 1).index_fill(0, torch.tensor([0]), size)
    found = []
    for given in (x, x * scale):
        wide = given.detach().double().requires_grad_()
        leaf = given.detach().requires_grad_()
        pair = [(CASES[case][0](part, weight.to(part), bias.to(part)), part) for part in (leaf, wide)]
        found.append([torch.autograd.grad(y, part, dy.to(part))[0].double() for y, part in pair])
    for ours, theirs in found:
        largest = theirs.abs().amax((0, 2, 3), keepdim=True)
        assert bool(((ours - theirs).abs() <= 64 * UNIT[torch.float32] * largest).all())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_the_derivative_of_a_large_batch_s_derivative(case, layout):
    """By a penalty on the gradient, against the textbook's formula in PyTorch."""
    x, dy, weight, bias = call_of(LARGE, torch.float64, torch.float64, layout)

    def textbook(x, weight, bias):
        y = torch.zeros_like(x)
        for label in np.unique(CASES[case][1]):
            rows = torch.from_numpy(CASES[case][1] == label)
            y[rows] = torch.nn.functional.batch_norm(x[rows], None, None, weight, bias, True, eps=EPS)
        return y

    found = []
    for function in (CASES[case][0], textbook):
        leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
        (dx,) = torch.autograd.grad((function(*leaves) * dy).sum(), leaves[:1], create_graph=True)
        found.append(torch.autograd.grad(dx.square().sum(), leaves[:2]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(6, 2), (6, 2, 3)], ids=str)
def test_derivatives_of_both_orders(case, shape):
    x, _, weight, bias = call_of(shape, torch.float64, torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradcheck(CASES[case][0], leaves)
    assert torch.autograd.gradgradcheck(CASES[case][0], leaves)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("samples", [6, 7])
def test_ghost_statistics_move_once_for_each_virtual_batch_in_order(layout, momentum, samples):
    x, *_ = call_of((samples, 3, 5), torch.float32, torch.float32, layout)
    mean, variance, counted = torch.ones(3), torch.full((3,), 2.0), torch.tensor(4)
    other_mean, other_variance, other_counted = (part.clone() for part in (mean, variance, counted))
    options = {"ghost_size": 2, "ragged": True, "num_batches_tracked": counted}
    y = ghost_batch_norm(x, mean, variance, training=True, momentum=momentum, **options)
    moved = {"training": True, "momentum": momentum, "num_batches_tracked": other_counted}
    parts = [batch_norm(part, other_mean, other_variance, **moved) for part in x.split(2)]
    # Both are float32 to within their roundings of elements of size 4 and statistics of size 4.
    assert float((y - torch.cat(parts)).abs().max()) <= 64 * UNIT[torch.float32]
    assert counted == other_counted == 4 + math.ceil(samples / 2)
    for ours, theirs in ((mean, other_mean), (variance, other_variance)):
        assert float((ours - theirs).abs().max()) <= 4 * 4 * 4 * RUNNING[torch.float32]
    assert not torch.equal(mean, torch.ones(3))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("domains", [[1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 0, 0]], ids=str)
def test_a_large_mixed_batch_moves_each_domain_s_statistics(layout, momentum, domains):
    x, *_ = call_of(LARGE, torch.float32, torch.float32, layout)
    ours, theirs = (
        [(torch.ones(8), torch.full((8,), 2.0), torch.tensor(4)) for _ in range(3)] for _ in range(2)
    )
    labels = torch.tensor(domains)
    y = split_batch_norm(x, labels, ours, training=True, momentum=momentum)
    for domain in (0, 1):
        rows = labels == domain
        mean, variance, counted = theirs[domain]
        moved = {"training": True, "momentum": momentum, "num_batches_tracked": counted}
        expected = batch_norm(x[rows], mean, variance, **moved)
        assert float((y[rows] - expected).abs().max()) <= 64 * UNIT[torch.float32]
    for one, other in zip(ours, theirs, strict=True):
        assert one[2] == other[2]
        for moment, of_batch_norm in zip(one[:2], other[:2], strict=True):
            assert float((moment - of_batch_norm).abs().max()) <= 4 * RUNNING[torch.float32]
    assert not torch.equal(ours[0][0], torch.ones(8))
    with pytest.raises(OptionError, match="needs num_batches_tracked"):
        split_batch_norm(x, labels, [(*ours[0][:2], None)] * 3, training=True, momentum=None)


@pytest.mark.parametrize("shape", [(6, 4, 3, 4), LARGE, (6, 2, 3, 2, 3)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_a_mixed_batch_keeps_its_memory_format(shape, training):
    x = call_of(shape, torch.float32, torch.float32, "channels-last")[0].requires_grad_()
    running = [(torch.zeros(shape[1]), torch.ones(shape[1]), None) for _ in range(3)]
    y = split_batch_norm(x, DOMAINS, running, training=training)
    assert y.stride() == x.stride()
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert gradient.shape == shape


def test_inference_is_batch_norm_s():
    x, _, weight, bias = call_of((5, 3, 4), torch.float32, torch.float32)
    running = (torch.rand(3), torch.rand(3) + 1)
    expected = batch_norm(x, *running, weight, bias, activation="relu")
    options = {"activation": "relu"}
    assert torch.equal(ghost_batch_norm(x, *running, weight, bias, ghost_size=2, **options), expected)
    kept = [(None, None, None), (*running, None)]
    assert torch.equal(split_batch_norm(x, 1, kept, weight, bias, **options), expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_residual_and_activation(case, layout):
    x, residual, weight, bias = call_of((6, 3, 4), torch.float64, torch.float64, layout)
    plain = CASES[case][0](x, weight, bias)
    y = CASES[case][0](x, weight, bias, residual=residual, activation="silu")
    torch.testing.assert_close(y, torch.nn.functional.silu(plain + residual), rtol=0, atol=1e-14)


def test_one_domain_is_batch_norm_to_the_bit():
    x, _, weight, bias = call_of((6, 3, 4), torch.float32, torch.float32)
    expected = batch_norm(x, None, None, weight, bias, True)
    assert torch.equal(split_batch_norm(x, 0, [(None, None, None)], weight, bias, True), expected)


def test_ghost_bad_calls_leave_the_statistics():
    x, mean, variance = torch.randn(6, 3), torch.zeros(3), torch.ones(3)
    for given, options, error, message in (
        (
            x,
            {"ghost_size": 4},
            ShapeError,
            "6 samples are 1 virtual batches of 4 and 2 left over: take another",
        ),
        (x, {"ghost_size": 8}, ShapeError, "0 virtual batches of 8 and 6 left over"),
        (x, {"ghost_size": 0}, OptionError, "at least 1 and a whole number, but is 0"),
        (x, {"ghost_size": 2.0}, OptionError, "at least 1 and a whole number, but is 2.0"),
        (x, {"ghost_size": 1}, ShapeError, "Expected more than 1 value per channel"),
        (x, {"ghost_size": 5, "ragged": True}, ShapeError, "Expected more than 1 value per channel"),
        (x, {"ghost_size": 2, "momentum": None}, OptionError, "needs num_batches_tracked"),
        (x, {"ghost_size": 2, "activation": "rely"}, OptionError, "did you mean 'relu'"),
        (x.int(), {"ghost_size": 2}, DtypeError, "not implemented for 'Int'"),
    ):
        with pytest.raises(error, match=message):
            ghost_batch_norm(given, mean, variance, training=True, **options)
    assert torch.equal(mean, torch.zeros(3))
    assert torch.equal(variance, torch.ones(3))
    assert ghost_batch_norm(torch.randn(6, 3, 2), None, None, training=True, ghost_size=1).shape == (6, 3, 2)


def test_split_bad_calls_leave_the_statistics():
    x = torch.randn(6, 3)
    running = [(torch.zeros(3), torch.ones(3), torch.tensor(0)) for _ in range(2)]
    for domains, error, message in (
        (2, OptionError, "one of 0 to 1, but is 2"),
        (True, OptionError, "a whole number or an integer tensor"),
        (torch.tensor([0, 1]), ShapeError, r"must be \(6,\), one for each sample, but has shape \[2\]"),
        (torch.tensor([0, 1, 0, 1, 0, 3]), OptionError, "one of 0 to 1, but 0 to 3 came"),
        (torch.zeros(6), DtypeError, "must be integers"),
        (torch.zeros(6, dtype=torch.bool), DtypeError, "must be integers"),
        (torch.full((6,), 2, dtype=torch.uint16), OptionError, "one of 0 to 1, but 2 to 2 came"),
        (
            torch.full((6,), 2**63 + 5, dtype=torch.uint64),
            OptionError,
            f"but {2**63 + 5} to {2**63 + 5} came",
        ),
        (torch.tensor([0, 0, 0, 0, 0, 1]), ShapeError, "domain 1 has one sample of this batch"),
    ):
        with pytest.raises(error, match=message):
            split_batch_norm(x, domains, running, training=True)
    for mean, variance, counted in running:
        assert not mean.any()
        assert torch.equal(variance, torch.ones(3))
        assert counted == 0


@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 3, 0), (0, 3)], ids=str)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_an_empty_ghost_batch_is_counted_as_batch_norm_counts_it(momentum, shape):
    counts = []
    for call in (batch_norm, functools.partial(ghost_batch_norm, ghost_size=4)):
        mean, variance, counted = torch.zeros(3), torch.ones(3), torch.tensor(2)
        given = (torch.empty(shape), mean, variance, None, None, True, momentum)
        assert call(*given, num_batches_tracked=counted).shape == shape
        assert not mean.any()
        assert torch.equal(variance, torch.ones(3))
        counts.append(int(counted))
    assert counts == [3, 3]


def test_a_split_batch_without_samples_is_none_of_any_domain():
    mean, variance, counted = torch.zeros(3), torch.ones(3), torch.tensor(0)
    none = torch.empty(0, dtype=torch.long)
    y = split_batch_norm(torch.empty(0, 3, 2), none, [(mean, variance, counted)], training=True)
    assert y.shape == (0, 3, 2)
    assert not mean.any()
    assert counted == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.uint64], ids=str
)
def test_domains_of_every_integer_dtype(dtype, training):
    x, domains = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 0, 1])
    running = [(torch.zeros(3), torch.ones(3) + domain, None) for domain in range(2)]
    call = functools.partial(split_batch_norm, x, running=running, training=training, momentum=0.0)
    assert torch.equal(call(domains=domains.to(dtype)), call(domains=domains))
