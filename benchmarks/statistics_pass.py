"""Recalibrating a network beside running it, and beside PyTorch's way of re-estimating its statistics."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import normwright as nw
from benchmarks.alternate import alternate_for
from benchmarks.machine import touch_heap
from benchmarks.models import resnet50


def three_convolutions() -> nn.Module:
    """A small network, in which what surrounds the arithmetic weighs more."""
    widths = (3, 16, 32, 64)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


# The networks, each with how many batches are read of it.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-50 of transformers": (lambda: resnet50(8, 224).network, 2),
    "three convolutions": (three_convolutions, 20),
}


@dataclass(frozen=True)
class Passes:
    """Median seconds of a plain inference pass, and the medians of the others' ratios to it."""

    plain: float
    recalibrate: float
    update_bn: float


def measure_passes(name: str, batch: int, size: int, seconds: float) -> Passes:
    """Times the three in turn, over the same batches."""
    touch_heap()
    torch.manual_seed(0)
    make, batches = NETWORKS[name]
    network = make().eval()
    data = [torch.randn(batch, 3, size, size) for _ in range(batches)]

    def plain() -> None:
        with torch.no_grad():
            for images in data:
                network(images)

    tasks = {
        "plain": plain,
        "recalibrate": lambda: nw.recalibrate(network, data),
        "update_bn": lambda: _update_bn(network, data),
    }
    times = alternate_for(tasks, seconds=seconds)
    ratios = (times[name].ratio_to(times["plain"]) for name in ("recalibrate", "update_bn"))
    return Passes(times["plain"].median, *ratios)


def _update_bn(network: nn.Module, data: list[Tensor]) -> None:
    update_bn(data, network)
    network.eval()
