"""Gradients, and what the optimiser makes of them, while a network trains."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from normwright.doctor.training.layers import layer_of, layers_of
from normwright.doctor.training.spread import count_nonfinite
from normwright.functional.sharded import is_sharded, whole
from normwright.network.walk import is_normaliser


@dataclass(frozen=True)
class GradientFacts:
    """The gradient of one parameter at each step of the optimiser (of each `accumulation` mini-batches).

    Args:
        parameter: qualified name; a shared one counts once.
        layer: qualified name of the layer that it belongs to.
        of_normaliser: it is a normaliser's weight or bias.
        elements: how many it has.
        steps: the mini-batch at which each was read, counted from 0; those where it had a gradient.
        norms: ‖g‖₂ at each of them.
        nonfinite: elements of g that are NaN or infinite; such a norm is NaN or infinite as well.
        weights: ‖w‖₂ before each.
        updates: ‖Δw‖₂ of the optimiser's step at each; () without an optimiser.
    """

    parameter: str
    layer: str
    of_normaliser: bool
    elements: int
    steps: tuple[int, ...]
    norms: tuple[float, ...]
    nonfinite: tuple[int, ...]
    weights: tuple[float, ...]
    updates: tuple[float, ...]

    @property
    def rms(self) -> tuple[float, ...]:
        """The root mean square of the gradient's elements at each step."""
        return tuple(norm / self.elements**0.5 for norm in self.norms)

    @property
    def ratios(self) -> tuple[float, ...]:
        """‖Δw‖/‖w‖ at each step; infinite where w was 0 and moved. () without an optimiser."""
        return tuple(map(ratio, self.updates, self.weights))


@dataclass(frozen=True)
class LayerGradients:
    """The gradients of all parameters of one layer, in the order of the forward pass.

    Args:
        layer: qualified name.
        steps: as in `GradientFacts`.
        norms: ‖g‖₂ over its parameters at each step.
        rms: of their elements.
        ratios: ‖Δw‖/‖w‖ over its parameters; () without an optimiser.
    """

    layer: str
    steps: tuple[int, ...]
    norms: tuple[float, ...]
    rms: tuple[float, ...]
    ratios: tuple[float, ...]


class GradientObserver:
    """Reads every parameter's gradient and update at each step of the optimiser.

    Args:
        accumulation: mini-batches for each step.
        scale: asked at each step, by what its gradients are still multiplied.
    """

    def __init__(self, accumulation: int = 1, scale: Callable[[], float] = lambda: 1.0) -> None:
        self._accumulation, self._scale = accumulation, scale
        self._waiting = 0
        self._read: dict[str, _Readings] = {}
        self._before: dict[str, Tensor] = {}

    def watching(self, network: nn.Module, step: int) -> contextlib.AbstractContextManager[object]:
        """Nothing is read from a forward."""
        return contextlib.nullcontext()

    def gradients_ready(self, network: nn.Module, step: int, loss: float) -> None:
        """Reads gradients and weights, where a step of the optimiser is due."""
        self._waiting += 1
        if self._waiting < self._accumulation:
            return
        self._waiting = 0
        held = {name: p for name, p in network.named_parameters() if p.grad is not None}
        gradients = [_values(parameter.grad) for parameter in held.values()]
        self._before = {name: parameter.detach().clone() for name, parameter in held.items()}
        scale = self._scale()
        norms = [norm / scale for norm in norms_of(gradients)]
        for name, gradient, norm, weight in zip(
            held, gradients, norms, norms_of(list(self._before.values())), strict=True
        ):
            found = self._read.setdefault(name, _Readings())
            found.steps.append(step)
            found.norms.append(norm)
            found.nonfinite.append(0 if math.isfinite(norm) else count_nonfinite(whole(gradient)))
            found.weights.append(weight)

    def stepped(self, network: nn.Module, step: int) -> None:
        """Reads how far each parameter moved."""
        now = dict(network.named_parameters())
        moved = [now[name].detach() - before for name, before in self._before.items()]
        for name, update in zip(self._before, norms_of(moved), strict=True):
            self._read[name].updates.append(update)
        self._before = {}

    def facts(self, network: nn.Module) -> tuple[GradientFacts, ...]:
        """Of every parameter that had a gradient, in the network's order."""
        modules = dict(network.named_modules())
        layers = layers_of(network)
        found = []
        for name, parameter in network.named_parameters():
            if name in self._read:
                layer, read = layer_of(name, layers), self._read[name]
                found.append(
                    GradientFacts(
                        name,
                        layer,
                        is_normaliser(modules[layer]),
                        parameter.numel(),
                        tuple(read.steps),
                        tuple(read.norms),
                        tuple(read.nonfinite),
                        tuple(read.weights),
                        tuple(read.updates),
                    )
                )
        return tuple(found)


@dataclass
class _Readings:
    """What was read of one parameter, step by step."""

    steps: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    nonfinite: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)


def norms_of(tensors: Sequence[Tensor]) -> list[float]:
    """The 2-norm of each tensor.

    In float32 the squares of elements below 1e-19 vanish, and of those above 1e19 overflow; norms near there
    are taken once more in float64. The norm of a DTensor is that of all its parts, for which the processes
    that hold them are waited for.
    """
    if any(map(is_sharded, tensors)):
        return [float(whole(torch.linalg.vector_norm(tensor, dtype=torch.float64))) for tensor in tensors]
    if not tensors:
        return []
    norms = [float(norm) for norm in torch._foreach_norm(list(tensors), 2)]
    return [
        norm if 1e-12 < norm < 1e18 else float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
        for norm, tensor in zip(norms, tensors, strict=True)
    ]


def _values(gradient: Tensor | None) -> Tensor:
    """A gradient's elements; of a sparse one, those that are stored."""
    assert gradient is not None
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def layers_in(facts: Iterable[GradientFacts], order: Sequence[str]) -> tuple[LayerGradients, ...]:
    """The gradients of each layer, from those of its parameters.

    Args:
        facts: of the parameters.
        order: layers in the order of the forward pass; others come last, as they came.
    """
    layers: dict[str, list[GradientFacts]] = {}
    for fact in facts:
        layers.setdefault(fact.layer, []).append(fact)
    places = {layer: place for place, layer in enumerate(order)}
    ordered = sorted(layers, key=lambda layer: places.get(layer, len(places)))
    return tuple(_layer(layer, layers[layer]) for layer in ordered)


def _layer(layer: str, facts: list[GradientFacts]) -> LayerGradients:
    steps = tuple(sorted({step for fact in facts for step in fact.steps}))
    norms, rms, ratios = [], [], []
    for step in steps:
        here = [(fact, fact.steps.index(step)) for fact in facts if step in fact.steps]
        norms.append(math.hypot(*(fact.norms[place] for fact, place in here)))
        rms.append(norms[-1] / math.sqrt(sum(fact.elements for fact, _ in here)))
        if all(place < len(fact.updates) for fact, place in here):
            weight = math.hypot(*(fact.weights[place] for fact, place in here))
            update = math.hypot(*(fact.updates[place] for fact, place in here))
            ratios.append(ratio(update, weight))
    return LayerGradients(layer, steps, tuple(norms), tuple(rms), tuple(ratios))


def ratio(update: float, weight: float) -> float:
    """‖Δw‖/‖w‖: infinite where w was 0 and moved."""
    if weight:
        return update / weight
    return math.inf if update else 0.0
