"""What recalibrating a network costs beside running it.

    python -m benchmarks.recalibration [--seconds S] [--batch N] [--size S]

Both read the same batches; they alternate, and the median of their ratios is quoted.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from torch import nn

import normwright as nw
from benchmarks.alternate import alternate_for
from benchmarks.machine import describe, in_words
from benchmarks.markdown import figure, table
from benchmarks.models import resnet50

GOAL = 1.1


def small() -> nn.Module:
    """A small network, in which what surrounds the arithmetic weighs more."""
    widths = (3, 16, 32, 64)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def measure(network: nn.Module, batches: int, batch: int, size: int, seconds: float) -> tuple[float, float]:
    """Median seconds of a plain inference pass, and the median of recalibration's ratios to it."""
    network.eval()
    data = [torch.randn(batch, 3, size, size) for _ in range(batches)]

    def plain() -> None:
        with torch.no_grad():
            for images in data:
                network(images)

    tasks = {"plain": plain, "recalibrate": lambda: nw.recalibrate(network, data)}
    timings = alternate_for(tasks, seconds=seconds)
    return timings["plain"].median, timings["recalibrate"].ratio_to(timings["plain"])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="for each network")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    torch.manual_seed(0)
    networks = {
        "ResNet-50 of transformers": (2, resnet50(options.batch, options.size).network),
        "three convolutions": (20, small()),
    }
    rows = []
    for name, (batches, network) in networks.items():
        plain, ratio = measure(network, batches, options.batch, options.size, options.seconds)
        rows.append((name, str(batches), figure(1e3 * plain, 1), figure(ratio, 3), figure(GOAL, 1)))
    print(in_words(describe()))
    print(f"batches of {options.batch} × 3 × {options.size} × {options.size}\n")
    print(table(("network", "batches", "plain inference, ms", "recalibrate ÷ plain", "at most"), rows))


if __name__ == "__main__":
    main()
