"""A norm before a zero-padded convolution: what folding it costs and saves. Part of benchmarks/folding.py.

Four ways that compute the same, in turn: the map left as a multiply-add, folded with its shift as a
convolution of ones (what `fold` does), folded with each channel padded by the value that the map makes 0, and
the norm itself. The convolution alone shows what is to be gained at most.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.alternate import alternate_for, repeated
from benchmarks.markdown import figure, table
from benchmarks.real_networks import draw_statistics
from normwright.network import fold_with_report
from normwright.network.folding.affine import affine_of
from normwright.network.folding.channel_affine import ChannelAffine

# Channels and pixels of the 3 × 3 convolutions in an early, a middle and the last stage of a ResNet.
SHAPES = ((64, 56), (256, 14), (512, 7))
BATCHES = (1, 16)
WAYS = ("multiply-add", "folded", "padded", "norm", "convolution alone")

# Calls in a row for one reading of the clock: those of a single image are short.
_CALLS = {1: 8}


@dataclass(frozen=True)
class BorderRace:
    """One shape: medians in seconds a call, and each way's time over that of the multiply-add."""

    channels: int
    pixels: int
    batch: int
    repeats: int
    seconds: dict[str, float]
    to_multiply_add: dict[str, float]


class Padded(nn.Module):
    """The folded convolution on an input whose channels are padded with the values that the map makes 0."""

    def __init__(self, folded: nn.Conv2d, value: Tensor) -> None:
        super().__init__()
        self.folded = folded
        self.folded.padding = (0, 0)
        self.value: Tensor
        self.register_buffer("value", value.view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Its border is written over."""
        padded = F.pad(x, (1, 1, 1, 1))
        for axis in (-2, -1):
            for place in (0, padded.shape[axis] - 1):
                edge = padded.narrow(axis, place, 1)
                edge.copy_(self.value.expand_as(edge))
        y: Tensor = self.folded(padded)
        return y


def race_borders(seconds: float, *, quick: bool = False) -> list[BorderRace]:
    """Every shape at every batch size.

    Args:
        seconds: for each.
        quick: a few channels: does it run?
    """
    shapes = [(8, pixels) for _, pixels in SHAPES] if quick else SHAPES
    return [_race(*shape, batch, seconds) for shape in shapes for batch in BATCHES]


def _race(channels: int, pixels: int, batch: int, seconds: float) -> BorderRace:
    print(f"  {channels} channels of {pixels} × {pixels}, batch {batch}", file=sys.stderr, flush=True)
    x = torch.randn(batch, channels, pixels, pixels)
    calls = _CALLS.get(batch, 1)
    with torch.no_grad():
        ways = _ways(channels, x)
        expected = ways["norm"](x)
        for name in WAYS[:-1]:
            apart = float((ways[name](x) - expected).abs().max() / expected.abs().max())
            assert apart < 1e-4, (name, apart)
        tasks = {name: repeated(lambda way=ways[name]: way(x), calls) for name in WAYS}  # type: ignore[misc]
        timings = alternate_for(tasks, seconds=seconds, most=201)
    return BorderRace(
        channels,
        pixels,
        batch,
        len(timings["norm"].seconds),
        {name: timing.median / calls for name, timing in timings.items()},
        {name: timing.ratio_to(timings["multiply-add"]) for name, timing in timings.items()},
    )


def _ways(channels: int, x: Tensor) -> dict[str, nn.Module]:
    norm, convolution = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 3, padding=1)
    network = draw_statistics(nn.Sequential(norm, convolution)).eval()
    folded, report = fold_with_report(network, x)
    assert report.folded == 1
    assert norm.running_mean is not None
    assert norm.running_var is not None
    affine = affine_of(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
    taken_in = nn.Conv2d(channels, channels, 3, padding=1)
    taken_in.weight.copy_(convolution.weight * affine.scale.view(1, -1, 1, 1))
    assert convolution.bias is not None
    assert taken_in.bias is not None
    shift = (convolution.weight.double() * affine.shift.view(1, -1, 1, 1)).sum((1, 2, 3))
    taken_in.bias.copy_(convolution.bias + shift)
    return {
        "multiply-add": nn.Sequential(ChannelAffine.of(affine, dtype=x.dtype), copy.deepcopy(convolution)),
        "folded": folded,
        "padded": Padded(taken_in, (-affine.shift / affine.scale).to(x.dtype)),
        "norm": network,
        "convolution alone": copy.deepcopy(convolution),
    }


def border_table(races: Sequence[BorderRace]) -> str:
    """Times over that of the multiply-add, and its own in milliseconds."""
    others = [name for name in WAYS if name != "multiply-add"]
    head = (
        "channels",
        "pixels",
        "batch",
        "multiply-add, ms",
        *(f"{name}/it" for name in others),
        "repetitions",
    )
    return table(
        head,
        [
            (
                str(race.channels),
                f"{race.pixels} × {race.pixels}",
                str(race.batch),
                f"{1e3 * race.seconds['multiply-add']:.3f}",
                *(figure(race.to_multiply_add[name], 3) for name in others),
                str(race.repeats),
            )
            for race in races
        ],
    )
