"""Watches a network's layers while it trains: percentiles, gradients, updates.

Hooks are in place only during a step that is recorded, so a step that is not costs nothing more.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from normwright.lab.run import LayerTrace
from normwright.network.acceleration.fused_call import watch
from normwright.network.walk import find_normalisers

PERCENTILES = (0.15, 0.50, 0.85)
# A percentile p of n random elements has the standard error √(p(1 - p)/n)/density: for a Gaussian's 15th
# at 4,096 elements, 0.024 deviations. A ribbon's line is about that thick.
SAMPLE = 4096


def recorded_steps(steps: int, records: int) -> frozenset[int]:
    """`records` steps of `steps`, evenly spaced, the first and the last among them.

    At most every second one, so that there are steps whose time is their own.

    Example:
        >>> sorted(recorded_steps(100, 3))
        [0, 50, 99]
    """
    if records == 0:
        return frozenset()
    return frozenset(int(step) for step in np.linspace(0, steps - 1, min(records, (steps + 1) // 2)).round())


class Recorder:
    """Collects a `LayerTrace`.

    Args:
        network: the network that is trained.
        places: qualified names of the modules whose input and output are recorded.
        seed: of the elements that percentiles are taken from; apart from PyTorch's global generator, so
            that recording does not change a run.
    """

    def __init__(self, network: nn.Module, places: Sequence[str], *, seed: int) -> None:
        self._places = {name: network.get_submodule(name) for name in places}
        self._weights = _weights_by_layer(network)
        self._generator = torch.Generator().manual_seed(seed)
        self._chosen: dict[int, Tensor] = {}
        self._handles: list[Any] = []
        self._before: list[list[Tensor]] = []
        self._seen: dict[str, tuple[Tensor, Tensor]] = {}
        self._rows: dict[str, list[Any]] = {
            name: [] for name in ("steps", "input", "output", "gradient", "update")
        }

    def begin(self, step: int) -> None:
        """Before the forward pass of a step that is recorded."""
        self._rows["steps"].append(step)
        self._handles = [
            watch(module, functools.partial(self._see, name)) for name, module in self._places.items()
        ]

    def after_backward(self) -> None:
        """Between the backward pass and the optimiser's step."""
        self.stop()
        self._before = [[weight.detach().clone() for weight in layer] for layer in self._weights.values()]
        gradients = [[_gradient(weight) for weight in layer] for layer in self._weights.values()]
        self._rows["gradient"].append(_numbers([_norm(layer) for layer in gradients]))
        for side, row in enumerate(("input", "output")):
            nothing = torch.full((len(PERCENTILES),), torch.nan)
            values = [self._seen[name][side] if name in self._seen else nothing for name in self._places]
            self._rows[row].append(torch.stack(values).numpy() if values else np.zeros((0, 3)))
        self._seen = {}

    def after_update(self) -> None:
        """After the optimiser's step."""
        ratios = []
        for layer, before in zip(self._weights.values(), self._before, strict=True):
            changes = [weight.detach() - old for weight, old in zip(layer, before, strict=True)]
            ratios.append(_norm(changes) / _norm(before).clamp_min(torch.finfo(torch.float32).tiny))
        self._rows["update"].append(_numbers(ratios))
        self._before = []

    def stop(self) -> None:
        """Takes the hooks out."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def trace(self) -> LayerTrace:
        """What was recorded; a step that was begun and not finished is left out."""
        count = len(self._rows["update"])
        places, layers = len(self._places), len(self._weights)

        def stacked(row: str, *shape: int) -> Any:
            values = np.asarray(self._rows[row][:count], dtype=np.float32)
            return values.reshape(count, *shape)

        return LayerTrace(
            steps=np.asarray(self._rows["steps"][:count], dtype=np.int64),
            places=tuple(self._places),
            input=stacked("input", places, 3),
            output=stacked("output", places, 3),
            layers=tuple(self._weights),
            gradient=stacked("gradient", layers),
            update=stacked("update", layers),
        )

    def _see(self, name: str, x: Tensor, y: Tensor) -> None:
        # A place that is used several times in a step is recorded at its last use.
        self._seen[name] = (self._percentiles(x), self._percentiles(y))

    def _percentiles(self, x: Tensor) -> Tensor:
        flat = x.detach().flatten()
        if flat.numel() > SAMPLE:
            flat = flat[self._choice(flat.numel()).to(flat.device)]
        flat = flat.float()
        return torch.quantile(flat, torch.tensor(PERCENTILES, device=flat.device)).cpu()

    def _choice(self, numel: int) -> Tensor:
        if numel not in self._chosen:
            self._chosen[numel] = torch.randint(numel, (SAMPLE,), generator=self._generator)
        return self._chosen[numel]


def _weights_by_layer(network: nn.Module) -> dict[str, list[Tensor]]:
    """Each module that owns a weight, normalisers apart: a linear or convolution layer, an LSTM.

    Of a weight that is computed from others, as by weight norm, those that are trained.
    """
    normalisers = set(find_normalisers(network).values())
    found = {}
    for name, module in network.named_modules():
        given = [*module.named_parameters(recurse=False)]
        if is_parametrized(module):
            given += module.parametrizations.named_parameters()
        own = [parameter for key, parameter in given if key.startswith("weight") and parameter.requires_grad]
        if own and module not in normalisers and not isinstance(module, nn.PReLU):
            found[name] = list(own)
    return found


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm over all elements of all tensors."""
    squares: Tensor = torch.stack([tensor.float().square().sum() for tensor in tensors]).sum()
    return squares.sqrt()


def _numbers(values: Sequence[Tensor]) -> list[float]:
    return torch.stack(list(values)).tolist() if values else []
