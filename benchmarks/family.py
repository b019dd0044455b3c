"""What each member of the family costs: training forward and backward beside the closest kernel's.

    python -m benchmarks.family [--seconds 1] [--threads 1] [--only ghost]

The contender is what a member stands beside: batch norm for those that take their moments over the batch,
PyTorch's own operations for whitening, instance norm for filter response norm, layer or batch norm for
dynamic tanh, the plain layer for what acts on its weight, PyTorch's amax over the same view for maxout, its
LSTM for ours (28 rows of 28, 100 units, batch 128). Both run in turn on the same tensors; the ratio is the
median of the ratios of the repetitions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.alternate import alternate_for
from benchmarks.plain_whitening import PlainWhitening
from normwright import nn as fused

IMAGES, WIDE, VECTORS, TOKENS = (32, 64, 32, 32), (64, 256, 14, 14), (1024, 256), (32, 128, 256)
SEQUENCES, ROWS = (64, 256, 200), (28, 128, 28)
ASKED = 2.0  # 3 of an LSTM


@dataclass(frozen=True)
class Row:
    """One member, what it is measured beside, and on what."""

    member: str
    contender: str
    shape: tuple[int, ...]
    channels_last: bool
    make: Callable[[], nn.Module]
    make_contender: Callable[[], nn.Module]


def rows() -> Iterator[Row]:
    """Every member, on the shapes that it is used on."""
    for shape, last in ((IMAGES, False), (IMAGES, True), (WIDE, False)):
        c = shape[1]
        batch = ("batch norm", shape, last)
        yield _row("ghost batch norm, 8", batch, partial(fused.GhostBatchNorm2d, c, ghost_size=8))
        yield _row("split batch norm, one domain", batch, partial(fused.SplitBatchNorm2d, c))
        halves, in_turn = torch.arange(shape[0]) * 2 // shape[0], torch.arange(shape[0]) % 2
        yield _row("split batch norm, two halves", batch, partial(mixed, c, halves))
        yield _row("split batch norm, samples in turn", batch, partial(mixed, c, in_turn))
        yield _row("batch renorm", batch, partial(fused.BatchRenorm2d, c))
        whitened = ("whitening by PyTorch", shape, last)
        yield _row("whitening, zca", whitened, partial(fused.WhiteningNorm2d, c))
        yield _row("whitening, iterative", whitened, partial(fused.WhiteningNorm2d, c, method="iterative"))
        instance = ("instance norm", shape, last)
        yield _row("filter response norm", instance, partial(fused.FilterResponseNorm, c, tlu=False))
        yield _row("filter response norm, TLU", instance, partial(fused.FilterResponseNorm, c))
        yield _row("dynamic tanh", batch, partial(fused.DynamicTanh, c, axis=1))
    columns = ("whitening by PyTorch", VECTORS, False)
    yield _row("whitening, zca", columns, lambda: fused.WhiteningNorm1d(VECTORS[1]))
    vectors = ("batch norm", VECTORS, False)
    yield _row("ghost batch norm, 128", vectors, lambda: fused.GhostBatchNorm1d(VECTORS[1], ghost_size=128))
    yield _row("dynamic tanh", ("layer norm", TOKENS, False), lambda: fused.DynamicTanh(TOKENS[-1]))
    convolution = ("convolution", (16, 64, 16, 16), False)
    yield _row("weight norm", convolution, lambda: fused.weight_norm(nn.Conv2d(64, 64, 3)))
    standardised = fused.weight_standardization
    yield _row("weight standardisation", convolution, lambda: standardised(nn.Conv2d(64, 64, 3)))
    for pieces in (2, 4):
        largest = (f"amax of {pieces}", IMAGES, False)
        yield _row(f"maxout, {pieces}", largest, partial(fused.Maxout, pieces))
    half = ("batch norm", SEQUENCES, False)
    yield _row("masked batch norm, half counts", half, partial(padded, SEQUENCES))
    recurrent = ("LSTM", ROWS, False)
    yield _row("batch-normalised LSTM", recurrent, lambda: _Output(fused.BatchNormLSTM(28, 100)))
    yield _row("layer-normalised LSTM", recurrent, lambda: _Output(fused.LayerNormLSTM(28, 100)))


class _Padded(nn.Module):
    """Masked batch norm of sequences of 1/4 to 3/4 of the length."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.norm = fused.MaskedBatchNorm1d(shape[1])
        self.lengths = torch.linspace(shape[2] / 4, 3 * shape[2] / 4, shape[0]).long()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x, lengths=self.lengths)
        return y


class _Output(nn.Module):
    """A recurrent layer's outputs without its last state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)[0]
        return y


class _Largest(nn.Module):
    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x.unflatten(1, (-1, self.pieces)).amax(2)
        return y


def padded(shape: tuple[int, ...]) -> nn.Module:
    """Masked batch norm of sequences of which half the elements count."""
    return _Padded(shape)


def mixed(channels: int, domains: Tensor) -> nn.Module:
    """Split batch norm of samples in these domains, (N,)."""
    module = fused.SplitBatchNorm2d(channels)
    module.domain = domains
    return module


def _row(member: str, beside: tuple[str, tuple[int, ...], bool], make: Callable[[], nn.Module]) -> Row:
    contender, shape, last = beside
    kinds: dict[str, Callable[[], nn.Module]] = {
        "batch norm": lambda: (fused.BatchNorm2d if len(shape) == 4 else fused.BatchNorm1d)(shape[1]),
        "whitening by PyTorch": lambda: PlainWhitening(shape[1]),
        "instance norm": lambda: fused.InstanceNorm2d(shape[1], affine=True),
        "layer norm": lambda: fused.LayerNorm(shape[-1]),
        "convolution": lambda: nn.Conv2d(shape[1], shape[1], 3),
        "amax of 2": lambda: _Largest(2),
        "amax of 4": lambda: _Largest(4),
        "LSTM": lambda: _Output(nn.LSTM(28, 100)),
    }
    return Row(member, contender, shape, last, make, kinds[contender])


def measure(row: Row, seconds: float) -> tuple[float, float]:
    """The member's median time in seconds, and its ratio to the contender's."""
    x = torch.randn(row.shape)
    if row.channels_last:
        x = x.to(memory_format=torch.channels_last)
    tasks = {"member": _training(row.make(), x), "contender": _training(row.make_contender(), x)}
    timings = alternate_for(tasks, seconds=seconds)
    return timings["member"].median, timings["member"].ratio_to(timings["contender"])


def _training(module: nn.Module, x: Tensor) -> Callable[[], None]:
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    dy = torch.randn_like(module(leaf))

    def step() -> None:
        leaf.grad = None
        module.zero_grad()
        module(leaf).backward(dy)

    return step


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="members whose name holds this")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    print(f"| member | shape | beside | ms | ratio (asked: {ASKED:g}) |\n|---|---|---|---:|---:|")
    for row in rows():
        if arguments.only not in row.member:
            continue
        time, ratio = measure(row, arguments.seconds)
        layout = ", channels-last" if row.channels_last else ""
        shape = "×".join(map(str, row.shape))
        measured = f"{1000 * time:.2f} | {ratio:.2f}"
        print(f"| {row.member} | {shape}{layout} | {row.contender} | {measured} |", flush=True)


if __name__ == "__main__":
    main()
