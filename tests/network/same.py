"""What an accelerated network must have in common with the network that it was made of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# In float64, in units of the largest element: two networks of some fifty layers that differ by roundings of
# 2^-53, each layer passing on an error at most a few hundred times over; a value computed wrongly differs
# by more than 1e-3.
ROUNDING = 1e-8


def randomise(network: nn.Module) -> nn.Module:
    """The network in float64 with every parameter and running statistic drawn, none at 0 or 1."""
    draw = torch.Generator().manual_seed(0)
    network.double()
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if value.is_floating_point():
                value.add_(0.1 * torch.randn(value.shape, generator=draw, dtype=value.dtype))
                if name.endswith("running_var"):
                    value.abs_().add_(0.1)
    return network


def assert_close(actual: Any, expected: Any, what: str = "value") -> None:
    """Equal up to rounding, and not zero altogether."""
    assert actual.shape == expected.shape, what
    assert actual.dtype == expected.dtype, what
    actual, expected = actual.detach().double(), expected.detach().double()
    scale = max(float(expected.abs().max()), 1e-3) if expected.numel() else 1.0
    assert float((actual - expected).abs().max() if expected.numel() else 0.0) <= ROUNDING * scale, what


def run(network: nn.Module, call: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """Output, gradients and buffers of one step in the network's mode."""
    torch.manual_seed(3)
    y = call(network)
    assert float(y.detach().abs().max()) > 0
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).cos()
    if y.requires_grad:
        (y * weights).sum().backward()
    found = {"output": y.detach()}
    found |= {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    found |= dict(network.named_buffers())
    return found


def modes(network: nn.Module) -> Iterator[nn.Module]:
    """Copies of a network for training and for inference."""
    for training in (True, False):
        yield copy.deepcopy(network).train(training)


def assert_same(network: nn.Module, fast: nn.Module, call: Callable[[nn.Module], Tensor]) -> None:
    """Outputs, gradients and running statistics in both modes; the state in names, order and values."""
    assert list(network.state_dict()) == list(fast.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(value, fast.state_dict()[name]), name
    for one, other in zip(modes(network), modes(fast), strict=True):
        expected, actual = run(one, call), run(other, call)
        assert expected.keys() == actual.keys()
        gradients = [float(v.abs().max()) for k, v in expected.items() if k.startswith("gradient")]
        largest = max(gradients, default=0.0)
        for name, value in expected.items():
            # A gradient that is zero but for roundings is as small as those of the largest.
            scale = largest if name.startswith("gradient") else 0.0
            error = (value.double() - actual[name].double()).abs().max() if value.numel() else torch.zeros(())
            size = max(scale, float(value.double().abs().max()) if value.numel() else 0.0)
            assert float(error) <= ROUNDING * max(size, 1e-3), (name, one.training, float(error))


def assert_loads_both_ways(network: nn.Module, fast: nn.Module) -> None:
    """A checkpoint of either fits the other."""
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(1)
    other = copy.deepcopy(fast)
    other.load_state_dict(changed.state_dict())
    back = copy.deepcopy(network)
    back.load_state_dict(other.state_dict())
    for name, value in changed.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def fused_of(report: Any) -> dict[str, tuple[str, ...]]:
    """By the name of the normaliser, what is fused."""
    return {record.name: record.fused for record in report.normalisers if record.fused}
