"""Batches that a conversion is calibrated on are called as `recalibrate` calls them; examples of any make."""

from __future__ import annotations

import dataclasses
import math
from collections import UserDict

import pytest
import torch
from torch import nn

import normwright as nw
from normwright.errors import OptionError
from normwright.network import convert_with_report

X = torch.randn(8, 4, 6, generator=torch.Generator().manual_seed(0))
OTHER = torch.ones(8, 4, 6)
LABELS = torch.zeros(8, dtype=torch.long)


class Encoding(UserDict):
    """A mapping that is no dict, as Transformers' processors give it."""


class Two(nn.Module):
    """Takes a second input, which it adds."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.norm.running_mean.copy_(torch.linspace(-1, 1, 4))
        self.norm.running_var.copy_(torch.linspace(0.5, 2, 4))

    def forward(self, x, other=None):
        return self.norm(x if other is None else x + other)


@pytest.mark.parametrize(
    ("batch", "plain"),
    [
        ((X, LABELS), X),
        (((X, OTHER), LABELS), X + OTHER),
        ({"x": X, "labels": LABELS}, X),
        (Encoding(x=X, other=OTHER, labels=LABELS), X + OTHER),
        ((Encoding(x=X), LABELS), X),
    ],
    ids=[
        "a pair",
        "two inputs and a target",
        "a dict with labels",
        "an encoding",
        "an encoding and a target",
    ],
)
def test_batches_are_those_of_recalibrate(batch, plain):
    network = Two().eval()
    expected = nw.convert(network, "group", groups=2, calibrate=[plain])
    found = nw.convert(network, "group", groups=2, calibrate=[batch])
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in expected.state_dict().items())
    assert not torch.equal(found.norm.weight, network.norm.weight)


@pytest.mark.parametrize("batch", [{"image": X}, [], "text"], ids=["another name", "nothing", "text"])
def test_a_batch_that_forward_does_not_take(batch):
    with pytest.raises(OptionError, match=r"a batch must .*forward_fn="):
        nw.convert(Two().eval(), "group", calibrate=[batch])


def test_an_example_that_is_a_mapping():
    network = Two().eval()
    example = Encoding(x=X, other=OTHER)
    report = convert_with_report(network, "layer", example=example)[1]
    assert report.layers[0].became == "LayerNorm((4, 6))"
    assert isinstance(nw.fold(network, example).norm, nn.Module)


class Tagged(torch.Tensor):
    """A tensor class whose own `new_empty` takes sizes alone, as MONAI's does."""

    def new_empty(self, size, **options):
        return self.as_subclass(torch.Tensor).new_empty(tuple(size), **options)


def test_a_tensor_of_a_class_of_its_own():
    network = Two().eval()
    expected = nw.convert(network, "group", groups=2, calibrate=[X])
    found = nw.convert(network, "group", groups=2, calibrate=[X.as_subclass(Tagged)])
    assert torch.equal(found.norm.weight, expected.norm.weight)


@dataclasses.dataclass
class Output:
    logits: torch.Tensor


class Wrapped(Two):
    def forward(self, x):
        return Output(super().forward(x))


def test_the_gap_is_taken_of_whatever_holds_the_outputs():
    plain = convert_with_report(Two().eval(), "instance", example=X)[1]
    assert plain.gap.difference_converted > 0.1
    assert convert_with_report(Wrapped().eval(), "instance", example=X)[1].gap == plain.gap


class Lengthened(nn.Module):
    """Repeats each frame as often as it says itself, as a network does that predicts durations."""

    def __init__(self):
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x):
        y = self.norm(x)
        return self.last(y.repeat_interleave(1 + y[0, 0].relu().mul(4).long(), dim=2))


@pytest.mark.parametrize("calibrated", [False, True])
def test_outputs_whose_shape_hangs_on_values(calibrated):
    frames = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(0))
    network = Lengthened().eval()
    network.norm.running_mean.fill_(-1.0)
    options = {"calibrate": [frames], "names": ["norm"]} if calibrated else {"example": frames}
    away, report = convert_with_report(network, "group", **options)
    assert nw.convert(network, "group", names=["norm"])(frames).shape != network(frames).shape
    assert math.isnan(report.gap.difference_converted)
    assert "have other shapes than before" in str(report)
    assert torch.equal(nw.convert(away, "batch")(frames), network(frames))
