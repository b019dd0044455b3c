"""What a call costs beside its arithmetic: a tensor so small that nothing else is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import normwright.nn
from benchmarks.alternate import Task, alternate, repeated
from benchmarks.markdown import figure, table

SHAPE = (4, 8, 2, 2)
BOUNDS = {"training step": 1.2, "training forward": None, "inference": 1.1}

LAYERS: dict[str, tuple[object, ...]] = {
    "BatchNorm2d": (8,),
    "GroupNorm": (4, 8),
    "LayerNorm": ((8, 2, 2),),
    "RMSNorm": ((8, 2, 2),),
    "InstanceNorm2d": (8,),
}


@dataclass(frozen=True)
class Overhead:
    """Our layer's time over torch.nn's, and theirs in microseconds for the record."""

    layer: str
    run: str
    ratio: float
    theirs_us: float


def measure_overheads(*, inner: int = 200, repeats: int = 31, device: str = "cpu") -> list[Overhead]:
    """Times every layer in every kind of run, `inner` calls to a sample.

    On a GPU that is the host's time: it only queues the kernels, and they end sooner than the next is queued.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = []
    for layer, arguments in LAYERS.items():
        pair = (getattr(library, layer)(*arguments) for library in (normwright.nn, torch.nn))
        ours, theirs = (module.to(device) for module in pair)
        for run in BOUNDS:
            tasks = {"ours": _task(ours, run, device), "theirs": _task(theirs, run, device)}
            sampled = {name: repeated(task, inner) for name, task in tasks.items()}
            timings = alternate(sampled, repeats=repeats)
            seconds = timings["theirs"].median / inner
            found.append(Overhead(layer, run, timings["ours"].ratio_to(timings["theirs"]), 1e6 * seconds))
    return found


def overhead_table(rows: list[Overhead]) -> str:
    """Ratios beside their bounds."""
    head = ("layer", "run", "ours/torch.nn", "bound", "torch.nn, µs")
    cells = [
        (row.layer, row.run, figure(row.ratio), figure(BOUNDS[row.run], 1), f"{row.theirs_us:.0f}")
        for row in rows
    ]
    return table(head, cells)


def _task(layer: nn.Module, run: str, device: str) -> Task:
    layer.train(run != "inference")
    x, dy = (torch.randn(SHAPE, device=device) for _ in range(2))
    x.requires_grad_(run != "inference")
    leaves = (x, *layer.parameters())

    def step() -> None:
        torch.autograd.grad(layer(x), leaves, dy)

    def forward() -> Tensor:
        y: Tensor = layer(x)
        return y

    def inference() -> None:
        with torch.no_grad():
            layer(x)

    tasks: dict[str, Callable[[], object]] = {
        "training step": step,
        "training forward": forward,
        "inference": inference,
    }
    return tasks[run]
