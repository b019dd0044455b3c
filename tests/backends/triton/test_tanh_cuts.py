"""Dynamic tanh, cut in every way: a channel in chunks, channels quickest, short spaces whole; on any axis."""

import pytest
import torch
from test_dynamic_tanh import ALPHA, Expected, draw
from tolerances import assert_within

from normwright.backends.triton import channels_view
from normwright.backends.triton.channels_settings import ChannelsTile
from normwright.functional import dynamic_tanh

LONG, SHORT, ROWS = (3, 4, 9, 8), (2, 6, 5, 7), (21, 9)
CUTS = {
    "one channel, in chunks": (LONG, 1, "contiguous", ChannelsTile(1, 2, 16, 3)),
    "short spaces": (SHORT, 1, "contiguous", ChannelsTile(8, 1, 512, 2)),
    "short spaces, copied": (SHORT, 1, "sliced", ChannelsTile(8, 2, 512, 1)),
    "channels last": (SHORT, 1, "channels-last", ChannelsTile(8, 4, 8, 5)),
    "rows": (ROWS, -1, "contiguous", ChannelsTile(8, 4, 8, 3)),
    "an axis in the middle": (SHORT, 2, "contiguous", ChannelsTile(8, 4, 64, 2)),
    "an axis in the middle, quickest": (SHORT, 2, "channels-last", ChannelsTile(8, 16, 8, 2)),
    "the first axis": (ROWS, 0, "contiguous", None),
}
DTYPES = (
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float16),
    (torch.float64, torch.float64),
)
NAMES = ("dx", "dalpha", "dweight", "dbias")
CASES = [(cut, *DTYPES[number % len(DTYPES)]) for number, cut in enumerate(CUTS)]


@pytest.mark.parametrize(("cut", "dtype", "parameters"), CASES, ids=str)
def test_tanh(cut, dtype, parameters, monkeypatch):
    shape, axis, layout, tile = CUTS[cut]
    taken = []
    if tile is not None:
        monkeypatch.setattr(channels_view, "channels_tile", lambda *_, **__: taken.append(tile) or tile)
    x, dy, alpha, weight, bias = draw(shape, axis, dtype, parameters, layout)
    expected = Expected(x, dy, weight, bias, axis, dtype, parameters)
    leaves = [part.detach().requires_grad_() for part in (x, alpha, weight, bias)]
    y = dynamic_tanh(*leaves, axis=axis)
    assert y.stride() == torch.empty_like(x).stride()
    assert_within(y, expected.y, expected.y_bound, "y")
    for name, gradient in zip(NAMES, torch.autograd.grad(y, leaves, dy), strict=True):
        assert_within(gradient, getattr(expected, name), getattr(expected, f"{name}_bound"), name)
    assert len(taken) == (0 if tile is None else 2)


@pytest.mark.parametrize("wanted", [(0,), (1,), (3,)], ids=str)
def test_gradients_that_are_asked_for_alone(wanted):
    x, dy, *parameters = draw(SHORT, 1, torch.float32, torch.float32)
    leaves = [part.requires_grad_() for part in (x, *parameters)]
    every = torch.autograd.grad(dynamic_tanh(*leaves, axis=1), leaves, dy)
    call = [leaf if i in wanted else leaf.detach() for i, leaf in enumerate(leaves)]
    some = torch.autograd.grad(dynamic_tanh(*call, axis=1), [call[i] for i in wanted], dy)
    for i, gradient in zip(wanted, some, strict=True):
        assert torch.equal(gradient, every[i])


def test_without_weight_and_bias():
    x, _, alpha, *_ = draw(SHORT, 1, torch.float32, torch.float32)
    y = dynamic_tanh(x, alpha, axis=1)
    assert torch.equal(y, dynamic_tanh(x, ALPHA, torch.ones(6), torch.zeros(6), axis=1))
