"""Batch norm under a mask: batch norm of the joined unpadded data, and nothing of the padding."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tolerances import AGREEMENT, Analysis, assert_within

from normwright import nn
from normwright.errors import OptionError, ShapeError
from normwright.functional import batch_norm, masked_batch_norm
from normwright.reference import axes_of, masked_batch_norm_backward, moments
from normwright.reference import masked_batch_norm as reference

EPS = 2.0**-7
LENGTHS = [5, 2, 0, 4]
MASK = torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)
HOLES = torch.tensor([[1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 1, 1]]).bool()


# Sequences long enough that they are joined run by run.
LONG = torch.arange(300) < torch.tensor([300, 7, 0, 120]).unsqueeze(1)


def call_of(dtype=torch.float32, channels=3, length=5):
    draw = torch.Generator().manual_seed(0)
    x, dy = (torch.rand(4, channels, length, generator=draw, dtype=torch.float64) * 6 - 2 for _ in range(2))
    weight, bias = (torch.rand(channels, generator=draw, dtype=torch.float64) * 2 - 0.5 for _ in range(2))
    return tuple(tensor.to(dtype) for tensor in (x, dy, weight, bias))


@pytest.mark.parametrize("mask", [MASK, HOLES, LONG], ids=["lengths", "holes", "long"])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "every other"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_forward_and_gradients_are_the_formula_s(mask, layout, dtype):
    x, dy, weight, bias = call_of(dtype, *((8, 300) if mask is LONG else (3, 5)))
    if layout == "channels-last":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "every other":
        x = torch.stack([x, x], -1).flatten(2)[..., ::2]
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    y = masked_batch_norm(leaves[0], mask, None, None, *leaves[1:], True, eps=EPS)
    gradients = torch.autograd.grad(y, leaves, dy)
    assert y.dtype == dtype

    arrays = [tensor.double().numpy() for tensor in (x, weight, bias, dy)]
    rows = arrays[0].transpose(0, 2, 1)[mask.numpy()]
    axes = axes_of("batch", rows.shape)
    mean, variance = moments(rows, axes)
    analysis = Analysis(
        rows, axes, *arrays[1:3], None, mean[None], 1 / (variance + EPS)[None] ** 0.5, None, dtype
    )
    bounds = analysis.gradients(arrays[3].transpose(0, 2, 1)[mask.numpy()], dtype)
    expected = reference(arrays[0], mask.numpy(), *arrays[1:3], EPS)
    slopes = masked_batch_norm_backward(arrays[3], arrays[0], mask.numpy(), arrays[1], EPS)
    for name, got, whole, bound in (("y", y, expected, bounds.y), ("dx", gradients[0], slopes.dx, bounds.dx)):
        assert_within(got.transpose(1, 2)[mask], whole.transpose(0, 2, 1)[mask.numpy()], bound, name)
        assert not got.transpose(1, 2)[~mask].any()
    assert_within(gradients[1], slopes.dweight, bounds.dweight, "dweight")
    assert_within(gradients[2], slopes.dbias, bounds.dbias, "dbias")


@pytest.mark.parametrize("momentum", [0.3, None])
def test_it_is_batch_norm_of_the_joined_unpadded_data_to_the_bit(momentum):
    """Statistics too, with the unbiased variance of what counts; and in inference.

    Sums in double are taken in another order, of which no float32 here shows anything.
    """
    ours, theirs = nn.MaskedBatchNorm1d(3, momentum=momentum), nn.BatchNorm1d(3, momentum=momentum)
    x = call_of()[0]
    for mode in (True, True, False):
        ours.train(mode)
        theirs.train(mode)
        joined = theirs(x.transpose(1, 2)[MASK])
        for y in (copy.deepcopy(ours)(x, MASK), ours(x, lengths=torch.tensor(LENGTHS))):
            assert torch.equal(y.transpose(1, 2)[MASK], joined)
            assert not y.transpose(1, 2)[~MASK].any()
        for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("mask", [MASK, LONG], ids=["short", "long"])
def test_padding_may_hold_anything(mask):
    channels, length = (8, 300) if mask is LONG else (3, 5)
    norm, x = nn.MaskedBatchNorm1d(channels), call_of(torch.float32, channels, length)[0]
    outcomes = []
    for filling in (0.0, float("nan"), float("inf")):
        module = copy.deepcopy(norm)
        given = x.masked_fill(~mask[:, None], filling).requires_grad_()
        y = module(given, mask)
        y.square().sum().backward()
        outcomes.append([y, given.grad, module.weight.grad, *module.buffers()])
    for other in outcomes[1:]:
        assert all(map(torch.equal, outcomes[0], other))


@pytest.mark.parametrize("mask", [MASK, LONG], ids=["short", "long"])
def test_residual_and_activation(mask):
    channels, length = (8, 300) if mask is LONG else (3, 5)
    norm = nn.MaskedBatchNorm1d(channels, activation="relu")
    x, residual, *_ = call_of(torch.float32, channels, length)
    y = copy.deepcopy(norm)(x, mask, residual)
    rows = [tensor.transpose(1, 2)[mask] for tensor in (x, residual)]
    expected = batch_norm(rows[0], None, None, training=True, residual=rows[1], activation="relu")
    got = y.transpose(1, 2)[mask]
    assert float((got - expected).detach().abs().max()) <= (AGREEMENT if mask is LONG else 0) * 8
    assert not y.transpose(1, 2)[~mask].any()
    assert repr(norm).endswith("activation=relu)")


def test_gradcheck():
    x, _, weight, bias = (tensor.requires_grad_() for tensor in call_of(torch.float64))

    def call(x, weight, bias):
        return masked_batch_norm(x, HOLES, None, None, weight, bias, True, eps=EPS)

    assert torch.autograd.gradcheck(call, (x, weight, bias))
    assert torch.autograd.gradgradcheck(call, (x, weight, bias))


def test_drop_in_for_batch_norm():
    ours, theirs = nn.MaskedBatchNorm1d(3), torch.nn.BatchNorm1d(3)
    assert isinstance(ours, torch.nn.BatchNorm1d)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    for x in (call_of()[0], call_of()[0][..., 0]):
        assert torch.equal(ours(x), nn.BatchNorm1d(3)(x))
    whole = nn.MaskedBatchNorm1d(3)(call_of()[0], torch.ones(4, 5, dtype=torch.bool))
    assert float((whole - nn.BatchNorm1d(3)(call_of()[0])).detach().abs().max()) <= 64 * 2.0**-24
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin.eval()(call_of()[0], MASK), ours.eval()(call_of()[0], MASK))


def test_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        y = nn.MaskedBatchNorm1d(3)(call_of(torch.bfloat16)[0], MASK)
    assert y.dtype == torch.bfloat16


def test_without_running_statistics():
    norm, x = nn.MaskedBatchNorm1d(3, track_running_stats=False).eval(), call_of()[0]
    expected = batch_norm(x.transpose(1, 2)[MASK], None, None, norm.weight, norm.bias, True)
    assert torch.equal(norm(x, MASK).transpose(1, 2)[MASK], expected)


@pytest.mark.parametrize(
    "named", [{"mask": torch.ones(0, 5, dtype=torch.bool)}, {"lengths": torch.ones(0).long()}]
)
def test_an_empty_batch_gives_one_and_moves_nothing(named):
    norm = nn.MaskedBatchNorm1d(3)
    before = copy.deepcopy(norm.state_dict())
    x = torch.empty(0, 3, 5, requires_grad=True)
    y = norm(x, residual=torch.empty(0, 3, 5), **named)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 3, 5)
    for key in ("running_mean", "running_var"):
        assert torch.equal(norm.state_dict()[key], before[key])


def test_bad_calls_leave_the_statistics():
    norm, x = nn.MaskedBatchNorm1d(3), call_of()[0]
    before = copy.deepcopy(norm.state_dict())
    one = torch.zeros_like(MASK)
    one[0, 0] = True
    lengths = torch.tensor(LENGTHS)
    for given, named, error, message in (
        ((x, MASK.t()), {}, ShapeError, r"mask must be boolean and \(4, 5\), batch by length.*\[5, 4\]"),
        ((x, MASK[:, None]), {}, ShapeError, "mask must be boolean"),
        ((x, MASK.float()), {}, ShapeError, "mask must be boolean.*float32"),
        ((x, torch.zeros_like(MASK)), {}, ShapeError, "the mask is False everywhere"),
        ((x,), {"lengths": 0 * lengths}, ShapeError, "the mask is False everywhere"),
        ((x, one), {}, ShapeError, "Expected more than 1 value per channel"),
        ((x[..., 0], MASK), {}, ShapeError, r"expected 3D input \(got 2D input\)"),
        ((x, MASK, x[..., :4]), {}, ShapeError, "residual must"),
        ((x,), {"lengths": lengths[:3]}, ShapeError, r"lengths must be \(4,\)"),
        ((x,), {"lengths": lengths + 1}, ShapeError, "between 0 and 5.*from 1 to 6"),
        ((x,), {"lengths": lengths.float()}, ShapeError, "an integer for each"),
        ((x, MASK), {"lengths": lengths}, OptionError, "pass one of them"),
        ((x[:, :2], MASK), {}, ShapeError, "should contain 2 elements not 3"),
    ):
        with pytest.raises(error, match=message):
            norm(*given, **named)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


def test_inference_compiles_whole():
    """In training the number of what counts is asked for, which is no part of a graph."""
    x, mask = torch.randn(3, 4, 5), torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    running = (torch.zeros(4), torch.full((4,), 2.0))

    def call(x, mask):
        return masked_batch_norm(x, mask, *running)

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for counts in (mask, torch.ones_like(mask)):
        assert torch.equal(compiled(x, counts), call(x, counts))
