"""The parts family, cut in every way, against the float64 reference: each part is a batch of its own."""

import weakref

import numpy as np
import pytest
import torch
from test_parts import draw, positions_of, rows_of, spans_of
from tolerances import UNIT, Analysis, assert_within, depth

from normwright.backends.triton import parts_plan
from normwright.backends.triton.parts_plan import plan_of
from normwright.backends.triton.parts_settings import PartsTile, parts_tile, ranges_of
from normwright.errors import OptionError
from normwright.reference import axes_of, fused, fused_backward, moments

OPERATORS = torch.ops.normwright
EPS = 2.0**-7
NAMES = ("y", "dx", "dresidual", "dweight", "dbias")

VECTORS, SHORT, LONG = (16, 5), (4, 5, 6), (4, 5, 81)
CUTS = {
    "by the table": (VECTORS, "contiguous", "in turn", None),
    "channels quickest, a position to a piece": (VECTORS, "contiguous", "in turn", PartsTile(4, 1, 8)),
    "channels quickest, several ranges": (LONG, "channels-last", "halves", PartsTile(1, 16, 8)),
    "channels quickest, some in no part": (LONG, "channels-last", "anything", PartsTile(2, 16, 4)),
    "samples in pieces, several ranges": (LONG, "contiguous", "in turn", PartsTile(2, 16, 8)),
    "samples in pieces, some in no part": (LONG, "contiguous", "anything", PartsTile(4, 32, 4)),
    "short samples": (SHORT, "contiguous", "halves", PartsTile(2, 8, 8)),
    "short samples, some in no part": (SHORT, "transposed", "anything", PartsTile(8, 8, 2)),
}
OPTIONS = (  # activation, residual, affine, dtype
    ("silu", True, True, torch.float32),
    ("tanh", False, True, torch.bfloat16),
    (None, True, False, torch.float16),
)
CASES = [
    *((cut, OPTIONS[number % len(OPTIONS)]) for number, cut in enumerate(CUTS)),
    *(("short samples, some in no part", options) for options in OPTIONS[:1]),
]


def laid_out(x, layout):
    if layout == "channels-last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.transpose(0, -1).contiguous().transpose(0, -1) if layout == "transposed" else x


def call_of(shape, layout, residual, affine, dtype):
    x, beside, dy = (laid_out(draw(*shape, seed=seed).to(dtype), layout) for seed in range(3))
    weight, bias = (draw(shape[1], seed=seed).float() if affine else None for seed in (3, 4))
    return dy, x, beside if residual else None, weight, bias


def double(tensor):
    return None if tensor is None else tensor.double().numpy()


def assert_right(dy, x, residual, weight, bias, spans, activation):
    inputs = (x, residual, weight, bias)
    y, known = OPERATORS.parts_forward(*inputs, spans, 2, EPS, activation)
    found = (y, *OPERATORS.parts_backward(dy, *inputs, known, spans, 2, activation, 15))
    sizes = [(x.shape[0] * x.shape[2:].numel(), x.shape[1])] * 3 + [x.shape[1:2]] * 2
    wholes = [(np.zeros(size), np.zeros(size)) for size in sizes]  # what is expected, and its bound
    for part in range(2):
        places = positions_of(spans, part)
        at = places.numpy()
        rows = [None if t is None else double(rows_of(t)[places]) for t in (dy, x, residual)]
        axes = axes_of("batch", rows[1].shape)
        mean, variance = moments(rows[1], axes)
        # Sums of deviations and of their squares in float32: see `Analysis`.
        rounding = (depth(len(places)) + 4) * UNIT[torch.float32]
        assert_within(known[0, part], mean, rounding * np.sqrt(variance), "mean")
        assert_within(known[2, part], variance, rounding * variance, "variance")
        call = {"weight": double(weight), "bias": double(bias), "residual": rows[2], "axes": axes}
        settings = {"eps": EPS, "activation": activation}
        of_part = (
            fused(rows[1], **call, **settings).y,
            *fused_backward(rows[0], rows[1], **call, **settings),
        )
        means = {"mean": mean[None], "rstd": 1 / np.sqrt(variance[None] + EPS)}
        analysis = Analysis(rows[1], **call, **means, activation=activation, dtype=x.dtype)
        errors = analysis.gradients(rows[0], torch.float32)
        for (whole, bound), value, error in zip(wholes, of_part, errors, strict=True):
            if whole.ndim > 1:
                whole[at], bound[at] = value, error
            elif value is not None:  # summed once more, over the parts
                whole += value
                bound += 2 * error
    for name, tensor, whole in zip(NAMES, found, wholes, strict=True):
        if tensor is not None:
            assert_within(tensor if tensor.dim() == 1 else rows_of(tensor), *whole, name)
            assert tensor.dim() == 1 or tensor.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize(("cut", "options"), CASES, ids=str)
def test_parts(cut, options, monkeypatch):
    shape, layout, kind, tile = CUTS[cut]
    activation, *rest = options
    if tile is not None:
        monkeypatch.setattr(parts_plan, "parts_tile", lambda *_, **__: tile)
    call = call_of(shape, layout, *rest)
    assert_right(*call, spans_of(call[1], kind), activation)


def test_magnitudes():
    """Squares that overflow, a mean a million times the deviation, and a constant."""
    dy, x, _, weight, bias = call_of(SHORT, "contiguous", False, True, torch.float32)
    x[:, 0] *= 2.0**100
    x[:, 1] += 2.0**20
    x[:, 2] = 3.0
    assert_right(dy, x, None, weight, bias, spans_of(x, "halves"), None)


def test_a_nan_stays_in_its_channel_and_part():
    _, x, _, weight, bias = call_of(SHORT, "contiguous", False, True, torch.float32)
    spans = spans_of(x, "halves")

    def normalised(x):
        return OPERATORS.parts_forward(x, None, weight, bias, spans, 2, EPS, None)[0]

    before = normalised(x)
    x[3, 2, 1] = float("nan")
    after = normalised(x)
    assert bool(after[2:, 2].isnan().all())
    after[2:, 2] = before[2:, 2]
    assert torch.equal(before, after)


def test_nothing_is_where_no_part_is():
    """Neither of what lies there nor of what the parameters are."""
    dy, x, residual, weight, bias = call_of(SHORT, "contiguous", True, True, torch.float32)
    weight[1] = float("nan")
    bias[2] = float("inf")
    for tensor in (x, residual, dy):
        tensor[-1] = float("nan")
    spans, inputs = spans_of(x, "halves"), (x, residual, weight, bias)
    spans[1, 2] = 6  # of the two samples the first
    y, known = OPERATORS.parts_forward(*inputs, spans, 2, EPS, "sigmoid")
    dx, dresidual, *_ = OPERATORS.parts_backward(dy, *inputs, known, spans, 2, "sigmoid", 15)
    for found in (y, dx, dresidual):
        assert not found[-1].any()
        assert found[2, 0].any()


def test_what_lies_together_is_one_piece():
    """Whatever the order of the spans, and in however many they come."""
    images = torch.empty(8, 64, 7, 7)
    whole = torch.tensor([[0, 0, 196], [1, 196, 196]])
    single = torch.tensor([[n // 4, n * 49, 49] for n in reversed(range(8))])
    for x in (images, images.contiguous(memory_format=torch.channels_last)):
        one, other = plan_of(whole, 2, x), plan_of(single, 2, x)
        assert one.cut == other.cut
        assert torch.equal(one.table, other.table)
    assert one.table[:2].tolist() == [0, one.cut.tile.length]


def test_a_plan_is_made_once():
    spans, x = torch.tensor([[0, 0, 16]]), torch.empty(16, 5)
    assert plan_of(spans, 1, x).table is plan_of(spans.clone(), 1, x.clone()).table


def test_a_plan_is_of_its_spans_and_its_tensor():
    x, spans = torch.empty(16, 5), torch.tensor([[0, 0, 8], [1, 8, 8]])
    table = plan_of(spans, 2, x).table
    for others in ((spans.flip(0) + 0, 3, x), (spans[:1], 2, x), (spans, 2, x[:, :4])):
        assert plan_of(*others).table is not table


def test_no_more_plans_are_kept_than_fit():
    """Of a million samples with domains in no order, of which each step has other ones."""
    x = torch.empty(2**20, 1)
    spans = torch.stack([torch.zeros(2**19, dtype=torch.long), torch.arange(0, 2**20, 2)], 1)
    spans = torch.cat([spans, torch.ones(2**19, 1, dtype=torch.long)], 1)
    tables = []
    for _ in range(6):
        spans = spans[1:]  # the batch of another step
        tables.append(weakref.ref(plan_of(spans, 1, x).table))
    kept = [table() for table in tables if table() is not None]
    assert kept[-1] is tables[-1]()
    assert sum(table.nbytes for table in kept) <= 2**26


def other_plans(x):
    """More than are kept."""
    for number in range(40):
        plan_of(torch.tensor([[0, 0, number + 1]]), 1, x)


def test_the_plan_of_a_captured_call_outlives_all_others(monkeypatch):
    """A CUDA graph reads its table at every replay, and asks nobody."""
    x, spans = torch.empty(64, 7), torch.tensor([[0, 3, 50]])
    table = weakref.ref(plan_of(spans, 1, x).table)
    with monkeypatch.context() as capture:
        capture.setattr(parts_plan, "is_captured", lambda x: True)
        assert plan_of(spans, 1, x).table is table()
    other_plans(x)
    assert table() is not None
    assert plan_of(spans, 1, x).table is table()


def test_a_plan_that_no_graph_holds_is_let_go():
    x, spans = torch.empty(64, 9), torch.tensor([[0, 3, 50]])
    table = weakref.ref(plan_of(spans, 1, x).table)
    other_plans(x)
    assert table() is None


def test_a_plan_is_not_made_under_a_capture(monkeypatch):
    """Its table would have to be copied to the device."""
    monkeypatch.setattr(parts_plan, "is_captured", lambda x: True)
    with pytest.raises(OptionError, match="normalised once before a CUDA graph is captured"):
        plan_of(torch.tensor([[0, 1, 2]]), 1, torch.empty(64, 11))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [1, 5, 64, 2048])
@pytest.mark.parametrize("positions", [1, 49, 200, 3136, 10**6])
@pytest.mark.parametrize("quickest", [False, True])
def test_tiles_fit(quickest, positions, channels, dtype):
    """No tile is larger than the registers, and no program puts together more than the table allows."""
    runs = np.array([positions, positions // 3 + 1])
    tile = parts_tile(runs, 3 * positions, channels, dtype.itemsize, quickest=quickest)
    assert tile.pieces * tile.length * tile.channels <= 8192 // dtype.itemsize
    assert all(size & (size - 1) == 0 for size in tile[:3])
    tiles = np.array([1, 7, 10**6, 0])
    ranges = ranges_of(tiles, -(-channels // tile.channels), tile.channels)
    assert (ranges <= np.maximum(tiles, 0)).all()
    assert (ranges[:3] >= 1).all()
    assert ranges.max() * tile.channels <= max(4096, tile.channels)


@pytest.mark.parametrize(
    "span", [[2, 0, 1], [-1, 0, 1], [0, -1, 1], [0, 0, 17], [0, 16, 1], [0, 0, -1]], ids=str
)
def test_a_span_that_does_not_lie_in_x_is_refused(span):
    with pytest.raises(RuntimeError, match="a span must lie within the positions of x"):
        plan_of(torch.tensor([span]), 2, torch.empty(4, 3, 4))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_each_position_is_in_one_piece_of_its_part(layout, seed):
    random = np.random.default_rng(seed)
    samples, channels, space = (int(size) for size in random.integers(1, (9, 40, 90)))
    x = laid_out(torch.empty(samples, channels, space), layout)
    count, number = samples * space, int(random.integers(1, 4))
    ends = np.unique(random.integers(0, count + 1, 8))
    spans = np.stack([random.integers(-1, number, len(ends) - 1), ends[:-1], np.diff(ends)], 1)
    table, cut = plan_of(torch.from_numpy(random.permutation(spans[spans[:, 0] >= 0])), number, x)

    expected = np.full(count, -1)
    for part, first, length in spans:
        expected[first : first + length] = part
    begins, lengths = table[: 2 * cut.pieces].numpy().reshape(2, -1) * cut.unit
    ranges = table[2 * cut.pieces :].numpy().reshape(-1, 7)
    assert len(ranges) == sum(cut.ranges)
    found, quickest = np.full(count, -2), x.stride(1) == 1
    for part, first_tile, last_tile, first_range, last_range, here, whole in ranges:
        pieces = slice(first_tile * cut.tile.pieces, last_tile * cut.tile.pieces)
        assert here == lengths[pieces].sum()
        assert whole == (expected == part).sum()
        if part >= 0:
            assert set(ranges[first_range:last_range, 0]) == {part}
            assert last_range - first_range <= cut.most
        for begin, length in zip(begins[pieces], lengths[pieces], strict=True):
            sample, within = divmod(begin, channels * space)
            position = begin if quickest else sample * space + within
            assert length <= cut.tile.length
            assert quickest or within + length <= space
            assert (found[position : position + length] == -2).all()
            found[position : position + length] = part
    np.testing.assert_array_equal(found, expected)
