"""What a normaliser costs, ours beside PyTorch's: python -m benchmarks.layers.

Forward and backward in training mode, one thread, in copies: the time of `y.copy_(x)` on the same tensor
in the same run. The outputs of both are compared in the same run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import normwright as nw
from benchmarks.alternate import alternate

Shape = tuple[int, ...]

CASES: tuple[tuple[str, Shape, bool], ...] = (
    ("BatchNorm1d", (32, 100), False),
    ("BatchNorm2d", (256, 6, 28, 28), False),
    ("BatchNorm2d", (16, 64, 56, 56), False),
    ("BatchNorm2d", (16, 64, 56, 56), True),
    ("GroupNorm", (16, 64, 56, 56), False),
    ("GroupNorm", (16, 64, 56, 56), True),
    ("InstanceNorm2d", (16, 64, 56, 56), False),
    ("InstanceNorm2d", (16, 64, 56, 56), True),
    ("LayerNorm", (4096, 768), False),
    ("RMSNorm", (4096, 768), False),
)


def make(library: object, name: str, shape: Shape) -> nn.Module:
    """One normaliser of `torch.nn` or `normwright.nn`."""
    kind: Callable[..., nn.Module] = getattr(library, name)
    if name == "GroupNorm":
        return kind(8, shape[1])
    if name in ("LayerNorm", "RMSNorm"):
        return kind(shape[-1])
    return kind(shape[1], affine=True)


def step(module: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], None]:
    """Forward and backward."""

    def run() -> None:
        x.grad = None
        module(x).backward(dy)

    return run


def copy(x: Tensor) -> Callable[[], object]:
    """The unit: one read and one write of x."""
    source, target = x.detach(), torch.empty_like(x)
    return lambda: target.copy_(source)


def main() -> None:
    """Measures and prints a table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| layer | shape | layout | ours, copies | torch, copies | ours/torch | worst |Δy| |")
    print("|---|---|---|---|---|---|---|")
    for name, shape, channels_last in CASES:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x, dy = (torch.randn(shape).contiguous(memory_format=layout) for _ in range(2))
        x.requires_grad_()
        ours, theirs = make(nw.nn, name, shape), make(torch.nn, name, shape)
        difference = float((ours(x) - theirs(x)).abs().max().detach())
        tasks = {
            "copy": copy(x),
            "ours": step(ours, x, dy),
            "torch": step(theirs, x, dy),
        }
        timings = alternate(tasks, repeats=15)
        copies = {key: timings[key].ratio_to(timings["copy"]) for key in ("ours", "torch")}
        order = "channels-last" if channels_last else "contiguous"
        ratio = timings["ours"].ratio_to(timings["torch"])
        figures = f"{copies['ours']:.1f} | {copies['torch']:.1f} | {ratio:.2f} | {difference:.1e}"
        print(f"| {name} | {shape} | {order} | {figures} |")


if __name__ == "__main__":
    main()
