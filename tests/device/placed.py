"""Small networks on the device, in the ways that people run them, and what must stay as it was."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.real_networks import REAL_NETWORKS, draw_statistics

# Each runs its network in float64 on the CPU too, which is what the device's answers are held against.
WAYS = ("float64", "float32", "channels last", "bfloat16 autocast")

# In units of the largest element: float64 networks of some twenty layers that differ by roundings of 2^-53,
# each layer passing on an error at most a few hundred times over. What is computed wrongly differs by 1e-3.
ROUNDING = 1e-8

# Rounding errors of the same size differ by chance, and the largest of them by less than this.
TIMES_OWN = 4.0


class Residual(nn.Module):
    """(N, 3, H, W) -> (N, 5), smooth: convolutions, a residual, a transposed one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.wide = nn.Sequential(nn.ConvTranspose2d(8, 6, 2, stride=2), nn.BatchNorm2d(6), nn.SiLU())
        self.head = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = nn.functional.silu(self.deep(x) + x)
        return self.head(self.wide(x).mean((2, 3)))


# By name: what it needs, its network, and the shape of a sample.
NETWORKS: dict[str, tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": ("torch", Residual, (3, 12, 12)),
    "ResNet": ("transformers", lambda: REAL_NETWORKS["ResNet"](small=True).network, (3, 48, 48)),
    "MONAI UNet": ("monai", lambda: REAL_NETWORKS["MONAI UNet"](small=True).network, (1, 16, 16, 16)),
}


# The networks of others where strides and casts are at work, and where ReLU's kinks tell on no gradient.
CASES = [
    *(("residual", way) for way in WAYS),
    *((name, way) for name in NETWORKS if name != "residual" for way in WAYS if way != "float32"),
]


@dataclass(frozen=True, eq=False)
class Placed:
    """A network in inference mode on the device, in one of the ways.

    Args:
        network: on the device.
        exact: the same in float64 on the CPU.
        batches: of unequal sizes, on the CPU, as loaders give them.
        device: the network's.
        way: one of `WAYS`.
        smooth: no rounding moves a gradient by more than roundings do.
    """

    network: nn.Module
    exact: nn.Module
    batches: list[Tensor]
    device: torch.device
    way: str
    smooth: bool

    @property
    def unit(self) -> float:
        """The distance from 1 to the next number of the dtype that it is computed in."""
        narrow = {"float64": torch.float64, "bfloat16 autocast": torch.bfloat16}
        return torch.finfo(narrow.get(self.way, torch.float32)).eps

    def context(self) -> contextlib.AbstractContextManager[object]:
        """In which the network is run."""
        if self.way == "bfloat16 autocast":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def answer(self, network: nn.Module, x: Tensor) -> Tensor:
        """What it answers to a batch, from the device in the context."""
        with self.context():
            return answer(network, x.to(self.device))


def place(name: str, way: str, device: torch.device) -> Placed:
    """A network by its name, with drawn weights and statistics."""
    needs, build, shape = NETWORKS[name]
    pytest.importorskip(needs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exact = draw_statistics(build()).eval().double()
    dtype = torch.float64 if way == "float64" else torch.float32
    network = copy.deepcopy(exact).to(device, dtype)
    draw = torch.Generator().manual_seed(1)
    batches = [torch.randn(n, *shape, generator=draw).to(dtype) for n in (5, 3)]
    if way == "channels last":
        formats = {2: torch.channels_last, 3: torch.channels_last_3d}
        layout = formats[len(shape) - 1]
        network = network.to(memory_format=layout)
        batches = [batch.contiguous(memory_format=layout) for batch in batches]
    return Placed(network, exact, batches, device, way, name == "residual" or way == "float64")


def answer(network: nn.Module, x: Tensor) -> Tensor:
    """What a network answers; of Transformers' outputs, the scores."""
    y = network(x)
    return getattr(y, "logits", y)


def placement(network: nn.Module) -> dict[str, Any]:
    """Of every parameter and buffer its device, dtype and strides; of every module its mode and class."""
    tensors = network.state_dict(keep_vars=True)
    found: dict[str, Any] = {name: (t.device, t.dtype, t.stride()) for name, t in tensors.items()}
    modules = network.named_modules()
    return found | {f"{name}()": (type(module), module.training) for name, module in modules}


def values(network: nn.Module) -> dict[str, Tensor]:
    """Copies of every parameter and buffer."""
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def apart(actual: Tensor, exact: Tensor) -> float:
    """The largest difference, in units of the largest element."""
    exact = exact.detach().cpu().double()
    return float((actual.detach().cpu().double() - exact).abs().max() / exact.abs().max())


def assert_as_exact_as(
    case: Placed, actual: Tensor, model: Tensor, exact: Tensor, what: str = "", size: float = 0.0
) -> None:
    """Its error is at most some times the model's, which comes of the same operations, or a few ulps.

    Args:
        case: whose ulps.
        actual: on the device.
        model: there too, by other means.
        exact: in float64, on the CPU.
        what: for the message.
        size: of the errors' unit, where it is above the largest element.
    """
    exact = exact.detach()
    size = max(size, float(exact.abs().max()))
    errors = [float((y.detach().cpu().double() - exact).abs().max()) / size for y in (actual, model)]
    allowed = ROUNDING if case.way == "float64" else TIMES_OWN * (errors[1] + case.unit)
    assert errors[0] <= allowed, (what, errors[0], allowed)
