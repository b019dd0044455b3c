"""The operators on parts: each part is as if the channels' operators were given its positions alone."""

from __future__ import annotations

import pytest
import torch
from tolerances import AGREEMENT

from normwright.backends import eager

OPERATORS = torch.ops.normwright
EPS = 2.0**-7

BACKENDS = {
    "plain PyTorch": eager.OPERATORS.__getitem__,
    "kernels": lambda name: getattr(OPERATORS, name),
}

SHAPES = {
    "vectors": (16, 5),
    "short": (4, 5, 6),
    "long": (4, 5, 81),
    "images": (6, 5, 3, 7),
    "large": (16, 37, 13, 17),
}


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 6 - 2


def spans_of(x, kind):
    """(part, first position, length): whole samples in halves or in turn, or anything, some in no part."""
    space = x.shape[2:].numel()
    if kind == "halves":
        half = len(x) // 2 * space
        return torch.tensor([[0, 0, half], [1, half, half]])
    if kind == "in turn":
        return torch.tensor([[sample % 2, sample * space, space] for sample in range(len(x))])
    positions = len(x) * space
    return torch.tensor([[1, 5, 2], [0, 7, positions - 10], [1, positions - 2, 1], [0, 3, 0]])


def positions_of(spans, part):
    return torch.cat([torch.arange(first, first + n) for of, first, n in spans.tolist() if of == part])


def rows_of(x):
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def call_of(shape, kind, layout="contiguous", dtype=torch.float64):
    x = draw(*shape).to(dtype)
    spans = spans_of(x, kind)
    rows = rows_of(x).fill_diagonal_(1.0).clone()
    nowhere = torch.ones(len(rows), dtype=torch.bool)
    nowhere[torch.cat([positions_of(spans, part) for part in (0, 1)])] = False
    rows[nowhere] = float("nan")
    x = rows.view(len(x), *shape[2:], shape[1]).movedim(-1, 1)
    x = x if layout == "channels-last" else x.contiguous()
    beside = [draw(*shape, seed=seed).to(dtype) for seed in (1, 2)]
    weight, bias = (draw(shape[1], seed=seed).to(dtype) for seed in (3, 4))
    return x, *beside, weight, bias, spans


CASES = [
    (shape, kind, layout, activation, dtype)
    for shape in SHAPES
    for kind in ("halves", "in turn", "anything")
    for layout in ("contiguous", "channels-last")
    for activation, dtype in (("silu", torch.float64), (None, torch.float32))
    # AGREEMENT is of sums of 120 terms at most.
    if dtype == torch.float64 or shape not in ("long", "large")
]


@pytest.mark.parametrize("backend", [OPERATORS, eager], ids=["kernels", "plain PyTorch"])
@pytest.mark.parametrize(("shape", "kind", "layout", "activation", "dtype"), CASES)
def test_a_part_is_a_batch_of_its_own(backend, shape, kind, layout, activation, dtype):
    x, residual, dy, weight, bias, spans = call_of(SHAPES[shape], kind, layout, dtype)
    inputs = (x, residual, weight, bias)
    forward, backward = (
        (backend.parts_forward, backend.parts_backward)
        if backend is OPERATORS
        else (eager.OPERATORS["parts_forward"], eager.OPERATORS["parts_backward"])
    )
    y, moments = forward(*inputs, spans, 3, EPS, activation)
    gradients = backward(dy, *inputs, moments, spans, 3, activation, 15)
    assert y.stride() == gradients[0].stride() == torch.empty_like(x).stride()
    assert moments.shape == (3, 3, x.shape[1])
    assert bool(moments[:, 2].isnan().all())

    elementwise = [torch.zeros_like(rows_of(x)) for _ in range(3)]
    sums, kept = [torch.zeros_like(weight, dtype=torch.float64) for _ in range(2)], []
    for part in range(2):
        places = positions_of(spans, part)
        rows = [rows_of(tensor)[places] for tensor in (x, residual, dy)]
        of_part = (*rows[:2], weight, bias)
        own, known = OPERATORS.channels_forward(*of_part, None, None, None, 0.1, EPS, activation)
        slopes = OPERATORS.channels_backward(rows[2], *of_part, None, known, activation, 15)
        for whole, value in zip(elementwise, (own, *slopes[:2]), strict=True):
            whole[places] = value
        for total, value in zip(sums, slopes[2:], strict=True):
            total += value
        kept.append(torch.stack([*known, rows[0].double().var(0, correction=0)]))
    # Of float32 elements, plain PyTorch squares deviations in float32, and sums gradients in it.
    unit = AGREEMENT if dtype == torch.float32 else 1e-11
    found = [*(rows_of(tensor) for tensor in (y, *gradients[:2])), *gradients[2:]]
    for ours, theirs in zip(found, [*elementwise, *sums], strict=True):
        assert float((ours - theirs).abs().max()) <= unit * max(1.0, float(theirs.abs().max()))
    torch.testing.assert_close(moments[:, :2], torch.stack(kept, 1), rtol=unit, atol=unit)


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("kind", ["halves", "in turn", "anything"])
@pytest.mark.parametrize("parts", [2, 8])
def test_the_bits_are_the_same_with_every_number_of_threads(layout, kind, parts):
    x, residual, dy, weight, bias, spans = call_of(SHAPES["large"], kind, layout, torch.float32)
    if parts > 2 and kind != "anything":
        spans[:, 0] = spans[:, 0] * 0 + spans[:, 1] * parts // (16 * 13 * 17)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, moments = OPERATORS.parts_forward(x, residual, weight, bias, spans, parts, EPS, "gelu")
            call = (dy, x, residual, weight, bias, moments, spans, parts, "gelu", 15)
            found.append([y, moments, *OPERATORS.parts_backward(*call)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for one, again in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, again, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "span",
    [
        *([2, 0, 1], [-1, 0, 1], [0, -1, 1], [0, 0, 17], [0, 16, 1], [0, 0, -1], [0, 17, 0]),
        *([0, 2**63 - 1, 1], [0, 1, 2**63 - 1]),  # their sum is more than an int64 holds
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_span_that_does_not_lie_in_x_is_refused(backend, span):
    x, spans = draw(4, 3, 4), torch.tensor([span])
    with pytest.raises(RuntimeError, match="a span must lie within the positions of x"):
        BACKENDS[backend]("parts_forward")(x, None, None, None, spans, 2, EPS, None)


@pytest.mark.parametrize("spans", [[[0.0, 0.0, 16.0]], [[0, 0]], [0, 0, 16]], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_spans_that_are_no_rows_of_three_whole_numbers_are_refused(backend, spans):
    x, spans = draw(4, 3, 4), torch.tensor(spans)
    with pytest.raises(RuntimeError, match="spans must be int64 rows of part, first"):
        BACKENDS[backend]("parts_forward")(x, None, None, None, spans, 2, EPS, None)


@pytest.mark.parametrize(
    "spans",
    [[[0, 0, 5], [1, 4, 2]], [[0, 3, 2], [0, 0, 4]], [[0, 0, 12], [1, 5, 1]], [[1, 2, 1], [1, 2, 1]]],
    ids=str,
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_spans_that_overlap_are_refused(backend, spans):
    x, spans = draw(4, 3, 4), torch.tensor(spans)
    with pytest.raises(RuntimeError, match="no two spans may overlap"):
        BACKENDS[backend]("parts_forward")(x, None, None, None, spans, 2, EPS, None)
    moments = torch.ones(3, 2, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="no two spans may overlap"):
        BACKENDS[backend]("parts_backward")(x, x, None, None, None, moments, spans, 2, None, 15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_span_of_nothing_overlaps_none(backend):
    x, spans = draw(4, 3, 4), torch.tensor([[0, 0, 16], [1, 5, 0]])
    y, _ = BACKENDS[backend]("parts_forward")(x, None, None, None, spans, 2, EPS, None)
    alone, _ = BACKENDS[backend]("parts_forward")(x, None, None, None, spans[:1], 2, EPS, None)
    assert torch.equal(y, alone)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_part_and_fewer(backend):
    x, weight, spans = draw(4, 3, 4), draw(3), torch.empty(0, 3, dtype=torch.long)
    y, moments = BACKENDS[backend]("parts_forward")(x, None, weight, weight, spans, 0, EPS, None)
    assert moments.shape == (3, 0, 3)
    call = (x, x, x, weight, weight, moments, spans, 0, "silu", 15)
    gradients = BACKENDS[backend]("parts_backward")(*call)
    assert not any(part.any() for part in (y, *gradients))
    assert [part.shape for part in gradients] == [x.shape, x.shape, (3,), (3,)]
    with pytest.raises(RuntimeError, match="part"):
        BACKENDS[backend]("parts_forward")(x, None, None, None, spans, -1, EPS, None)
