"""A call that is repeated gives the bits of an ordinary one, and only calls that are alike are repeated."""

import pytest
import torch
from repeating import Repeater

from normwright.backends.gradients import DALPHA, DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.triton import (
    channel_tanh,
    channels,
    groups,
    interprets,
    operators,
    parts,
    replay,
    rows,
)
from normwright.backends.triton.parts_plan import plan_of

DEVICE = "cpu" if interprets() else "cuda"
ALL = DX | DRESIDUAL | DWEIGHT | DBIAS
EPS = 1e-5
C = 16


def tensor(shape, seed, layout="contiguous", dtype=torch.float32, offset=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    gap = 2 if layout == "with gaps" else 1
    memory = torch.zeros(gap * values.numel() + offset, dtype=dtype, device=DEVICE)[offset::gap]
    if layout == "channels-last":
        n, c, *space = shape
        view = memory.view(n, *space, c).movedim(-1, 1)
    else:
        view = memory.view(shape)
    return view.copy_(values)


def images(seed, **how):
    return tensor((2, C, 4, 5), seed, **how)


def row(seed):
    return tensor((C, 4, 5), seed)


def vectors(seed):
    return tensor((C,), seed), tensor((C,), seed + 1)


def running(seed):
    return (*vectors(seed), torch.tensor(seed, device=DEVICE), 0.1)


def moments(shape, seed):
    return tensor(shape, seed).abs() + 0.5


def plan(x):
    return plan_of(torch.tensor([[0, 0, 40]]), 1, x)


# By name: the kernel, how many tensors come first, and the arguments of a call by a seed and a layout.
CALLS = {
    "rows_forward": (
        rows.rows_forward,
        4,
        lambda s, **how: (images(s, **how), images(s + 1, **how), row(s), row(s + 1), 3, True, EPS, "silu"),
    ),
    "rows_forward_masked": (
        rows.rows_forward_masked,
        4,
        lambda s, **how: (images(s, **how), images(s + 1, **how), None, None, 3, False, EPS, "relu"),
    ),
    "rows_inference": (
        rows.rows_inference,
        4,
        lambda s, **how: (images(s, **how), None, row(s), None, 3, False, EPS, None),
    ),
    "rows_backward": (
        rows.rows_backward,
        7,
        lambda s, **how: (
            *(images(s + i, **how) for i in range(3)),
            *(row(s), row(s + 1), None, moments((2, 2), s), 3, True, "silu", ALL),
        ),
    ),
    "groups_forward": (
        groups.groups_forward,
        4,
        lambda s, **how: (images(s, **how), None, *vectors(s), 4, True, EPS, "gelu"),
    ),
    "groups_forward_masked": (
        groups.groups_forward_masked,
        4,
        lambda s, **how: (images(s, **how), images(s + 1, **how), *vectors(s), 4, True, EPS, "leaky_relu"),
    ),
    "groups_inference": (
        groups.groups_inference,
        4,
        lambda s, **how: (images(s, **how), None, None, None, C, False, EPS, None),
    ),
    "groups_backward": (
        groups.groups_backward,
        7,
        lambda s, **how: (
            *(images(s, **how), images(s + 1, **how), None, *vectors(s), None, moments((2, 2, 4), s)),
            *(4, True, "silu", DX | DWEIGHT | DBIAS),
        ),
    ),
    "parts_forward": (
        parts.parts_forward,
        5,
        lambda s, **how: (
            *(images(s, **how), images(s + 1, **how), *vectors(s), *plan(images(s, **how))),
            *(1, EPS, "silu"),
        ),
    ),
    "parts_backward": (
        parts.parts_backward,
        7,
        lambda s, **how: (
            *(images(s, **how), images(s + 1, **how), None, *vectors(s), moments((3, 1, C), s)),
            *(*plan(images(s, **how)), 1, "silu", DX | DWEIGHT | DBIAS),
        ),
    ),
    "channel_tanh": (
        channel_tanh.channel_tanh,
        4,
        lambda s, **how: (images(s, **how), moments((), s), *vectors(s), 1),
    ),
    "channel_tanh_backward": (
        channel_tanh.channel_tanh_backward,
        5,
        lambda s, **how: (
            *(images(s, **how), images(s + 1, **how), moments((), s), *vectors(s), 1),
            DX | DALPHA | DWEIGHT | DBIAS,
        ),
    ),
    "channels_forward": (
        channels.channels_forward,
        7,
        lambda s, **how: (images(s, **how), None, *vectors(s), *running(s), EPS, "relu"),
    ),
    "channels_forward_masked": (
        channels.channels_forward_masked,
        7,
        lambda s, **how: (images(s, **how), images(s + 1, **how), *vectors(s), *running(s), EPS, "relu"),
    ),
    "channels_backward": (
        channels.channels_backward,
        7,
        lambda s, **how: (
            *(images(s, **how), images(s + 1, **how), None, *vectors(s), None, moments((2, C), s)),
            *("relu", ALL - DRESIDUAL),
        ),
    ),
    "channel_affine": (
        channels.channel_affine,
        6,
        lambda s, **how: (
            images(s, **how),
            images(s + 1, **how),
            *vectors(s),
            *moments((2, C), s),
            EPS,
            None,
        ),
    ),
    "channel_affine_backward": (
        channels.channel_affine_backward,
        7,
        lambda s, **how: (
            *(images(s, **how), images(s + 1, **how), None, *vectors(s), *moments((2, C), s)),
            *(EPS, "silu", DWEIGHT),
        ),
    ),
    "channel_moments": (channels.channel_moments, 1, lambda s, **how: (images(s, **how),)),
}


def flat(result):
    return [t for t in (result if isinstance(result, tuple) else (result,)) if t is not None]


def assert_same(name, operator, seed, **how):
    """The operator's result, and what it moves in place, are to the bit those of the kernel."""
    kernel, _, arguments = CALLS[name]
    call, other = arguments(seed, **how), arguments(seed, **how)
    result, expected = operator(*call), kernel(*other)
    assert isinstance(result, tuple) == isinstance(expected, tuple)
    tensors = [[t for t in one if isinstance(t, torch.Tensor)] for one in (call, other)]
    for found, wanted in zip([*flat(result), *tensors[0]], [*flat(expected), *tensors[1]], strict=True):
        assert found.stride() == wanted.stride()
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


@pytest.fixture
def repeater(monkeypatch):
    return Repeater(monkeypatch)


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("name", CALLS)
def test_the_third_call_is_repeated(name, layout, repeater):
    kernel, tensors, _ = CALLS[name]
    operator = repeater.operator(kernel, tensors)
    for seed in (1, 20, 30, 40):
        assert_same(name, operator, seed, layout=layout)
    assert (repeater.ordinary, repeater.recorded, repeater.repeated) == (2, 1, 2)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_differs_is_another_kind(name, repeater):
    kernel, tensors, _ = CALLS[name]
    operator = repeater.operator(kernel, tensors)
    for seed in (1, 20):
        assert_same(name, operator, seed)
    for how in ({"layout": "channels-last"}, {"offset": 1}, {"dtype": torch.float16}):
        before = repeater.ordinary
        assert_same(name, operator, 30, **how)
        assert repeater.ordinary == before + 1
    assert_same(name, operator, 40)
    assert repeater.repeated == 1


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_copies_is_never_repeated(name, repeater):
    kernel, tensors, _ = CALLS[name]
    operator = repeater.operator(kernel, tensors)
    for seed in (1, 20, 30, 40):
        assert_same(name, operator, seed, layout="with gaps")
    assert (repeater.ordinary, repeater.recorded) == (4, 0)


def test_every_operator_but_those_with_out_is_among_the_calls():
    """And but for the LSTM's cell, which writes to what it is given, dense or not, and is always ordinary."""
    names = {name for name in vars(operators) if name in operators.eager.OPERATORS}
    assert {name for name in names if not name.endswith("_out") and "cell" not in name} == set(CALLS)


def test_a_tensor_given_twice_is_not_recorded_but_repeated(repeater):
    operator = repeater.operator(channels.channel_affine, 6)

    def assert_right(x, residual):
        call = (x, residual, None, None, *moments((2, C), 5), EPS, None)
        assert torch.equal(operator(*call), channels.channel_affine(*call))

    x = images(1)
    for _ in range(3):
        assert_right(x, x)
    assert repeater.recorded == 0
    assert_right(x, images(2))
    assert_right(x, x)
    assert (repeater.recorded, repeater.repeated) == (1, 1)


def test_how_far_past_an_aligned_address_a_tensor_lies_is_another_kind(repeater):
    """rstd lies within the moments: aligned where these lie 8 bytes past an aligned address, not 4."""
    operator = repeater.operator(channels.channels_backward, 7)
    x, of_two = images(1)[:, :2].clone(), tensor((2, 2), 5).abs() + 0.5

    def call(offset):
        memory = torch.zeros(4 + offset, device=DEVICE)[offset:].view(2, 2).copy_(of_two)
        operator(x, x.clone(), None, None, None, None, memory, None, DX)

    for _ in range(3):
        call(2)
    assert (repeater.recorded, repeater.repeated) == (1, 1)
    call(1)
    assert (repeater.recorded, repeater.repeated) == (1, 1)


def test_a_setting_that_differs_is_another_kind(repeater):
    operator = repeater.operator(rows.rows_inference, 4)
    x = images(1)
    for eps in (1e-5, 1e-5, 1.0, 1e-5, 1.0, 1.0):
        call = (x, None, None, None, 1, True, eps, None)
        assert torch.equal(operator(*call), rows.rows_inference(*call))
    assert (repeater.recorded, repeater.repeated) == (2, 2)


def test_a_watched_launch_is_ordinary(repeater, monkeypatch):
    operator = repeater.operator(rows.rows_inference, 4)
    call = (images(1), None, None, None, 1, True, EPS, None)
    for _ in range(3):
        operator(*call)
    assert repeater.repeated == 1
    monkeypatch.setattr(replay.knobs.runtime, "launch_enter_hook", print)
    operator(*call)
    assert (repeater.ordinary, repeater.repeated) == (3, 1)


def test_an_error_leaves_no_kind_behind(repeater):
    def fails(*_):
        raise ValueError("no")

    operator = repeater.operator(fails, 4)
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            operator(images(1), None, None, None, 1, True, EPS, None)
    assert (repeater.ordinary, repeater.recorded) == (3, 0)


def test_no_more_kinds_than_the_most_are_remembered(repeater, monkeypatch):
    monkeypatch.setattr(replay, "MOST_KINDS", 2)
    operator = repeater.operator(rows.rows_inference, 4)
    for eps in (1.0, 2.0, 3.0, 1.0, 1.0, 1.0):
        operator(images(1), None, None, None, 1, True, eps, None)
    assert (repeater.recorded, repeater.repeated) == (1, 1)


def test_forgetting(repeater):
    operator = repeater.operator(rows.rows_inference, 4)
    call = (images(1), None, None, None, 1, True, EPS, None)
    for _ in range(3):
        operator(*call)
    replay.forget()
    operator(*call)
    assert (repeater.ordinary, repeater.repeated) == (3, 1)


def test_why_nothing_is_repeated(monkeypatch):
    monkeypatch.setattr(replay, "interprets", lambda: False)
    assert replay.obstacle() is None
    monkeypatch.setattr(replay.triton, "__version__", "3.99.0")
    assert replay.obstacle() == (
        "every launch is made anew, because how to repeat one is known up to Triton 3.9 only"
    )
