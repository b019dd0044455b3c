"""What nw.Monitor costs a training: python -m benchmarks.monitor.

Three loops take turns, on copies of one network and the same batches: without a monitor, with one between its
windows, and with one whose window never ends. The cost at the default interval follows: of every `every`
steps, `steps` cost what the last loop costs and the others what the second does.
"""

from __future__ import annotations

import argparse
import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import normwright as nw
from benchmarks.alternate import alternate_for
from benchmarks.machine import describe, in_words
from benchmarks.markdown import figure, table
from benchmarks.models import resnet50
from benchmarks.saving import save
from benchmarks.statistics_pass import three_convolutions

GOAL = 1.05

_NEVER = 10**9


@dataclass(frozen=True)
class Row:
    """One network: a plain step in seconds, and the others' over it.

    Args:
        idle: a step between two windows.
        watched: one in a window.
        whole: the mean step at the default interval.
    """

    name: str
    seconds: float
    idle: float
    watched: float
    whole: float


def default(option: str) -> int:
    """What the monitor takes for an option that is left out."""
    value: int = inspect.signature(nw.Monitor).parameters[option].default
    return value


def measure(name: str, network: nn.Module, x: torch.Tensor, seconds: float) -> Row:
    """Plain, idle and watched steps in turn."""
    network.train()
    timings = alternate_for(
        {
            "plain": _loop(network, x),
            "idle": _loop(network, x, steps=1),
            "watched": _loop(network, x, steps=_NEVER),
        },
        seconds=seconds,
    )
    idle, watched = (timings[each].ratio_to(timings["plain"]) for each in ("idle", "watched"))
    every, steps = default("every"), default("steps")
    whole = (steps * watched + (every - steps) * idle) / every
    return Row(name, timings["plain"].median, idle, watched, whole)


def _loop(network: nn.Module, x: torch.Tensor, steps: int = 0) -> Callable[[], None]:
    """A step of training, under a monitor that watches the first `steps`."""
    network = copy.deepcopy(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    if steps:
        nw.Monitor(network, optimiser, every=_NEVER, steps=steps)

    def step() -> None:
        optimiser.zero_grad()
        output = network(x)
        (output if isinstance(output, torch.Tensor) else output.logits).square().mean().backward()
        optimiser.step()

    step()  # the first is watched in either
    return step


def main() -> None:
    """Prints and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each network")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="folder of the results")
    options = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(options.batch, 3, options.size, options.size)
    rows = [
        measure(
            "ResNet-50 of transformers", resnet50(options.batch, options.size).network, x, options.seconds
        ),
        measure("three convolutions", nn.Sequential(three_convolutions(), nn.Flatten()), x, options.seconds),
        measure(
            "three convolutions, 32 × 32", three_convolutions(), torch.randn(8, 3, 32, 32), options.seconds
        ),
    ]
    head = ("network", "plain step, ms", "between windows", "in a window", "at the default", "at most")
    page = "\n\n".join(
        [
            f"{in_words(describe())}; every {default('every')} steps, {default('steps')} are watched",
            table(
                head,
                [
                    (
                        row.name,
                        f"{1e3 * row.seconds:.1f}",
                        *map(figure, (row.idle, row.watched, row.whole)),
                        str(GOAL),
                    )
                    for row in rows
                ],
            ),
        ]
    )
    save(options.out, "monitor", page, {"machine": describe(), "rows": rows})
    print(page)


if __name__ == "__main__":
    main()
