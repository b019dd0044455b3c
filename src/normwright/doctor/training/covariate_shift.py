"""How far the layers below a layer pull the ground from under it while a network trains."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normwright.doctor.missing import SkipError
from normwright.doctor.random_states import random_states_kept
from normwright.doctor.statistics.ranks import all_finite
from normwright.doctor.subject import NoLossError, Subject
from normwright.doctor.training.gradients import norms_of
from normwright.doctor.training.layers import feature_axis, features_last, layer_of
from normwright.doctor.training.trial import forced_eager, try_step, why_it_cannot_step
from normwright.network.calling import tensors_of
from normwright.network.walk import is_normaliser
from normwright.network.writing import put_back
from normwright.nn.bookkeeping import is_recomputation


@dataclass(frozen=True)
class CovariateShift:
    """One layer's internal covariate shift, at each step of training.

    With g the layer's gradient on a mini-batch, and g' the one on the same mini-batch after the layers before
    it (in the forward pass) were updated and it was not:

        distance = ‖g' − g‖₂,   relative = ‖g' − g‖₂ / ‖g‖₂,   cosine = g'·g / (‖g'‖‖g‖)

    Args:
        layer: qualified name.
        depth: layers with parameters before it.
        distances, relative, cosines: at each step.
        drift: beside it, how far the distribution of the layer's input moved on that same mini-batch: root
            mean square, over features, of the mean's move in the feature's standard deviations.
        rule: how the layers below were updated ("SGD, lr 0.1").
    References:
        Santurkar et al. 2018, arXiv:1805.11604, section 2.2 and definition 2.1.
    """

    layer: str
    depth: int
    distances: tuple[float, ...]
    relative: tuple[float, ...]
    cosines: tuple[float, ...]
    drift: tuple[float, ...]
    rule: str


#: Layers that are measured at most. Each costs a forward, and the backward down to it.
LAYERS = 5

#: Mini-batches of the examination for each step that is measured.
_BATCHES_PER_STEP = 8

#: Of plain SGD, where no optimiser came: Santurkar et al.'s for a VGG on CIFAR-10.
_LR = 0.1


def covariate_shift_of(subject: Subject, order: Sequence[str]) -> tuple[CovariateShift, ...]:
    """Measures a few layers, spread over the depth, on one mini-batch of each eight.

    Args:
        subject: stays as it is; a twin of it takes the steps.
        order: names of the layers, in the order of the forward pass.
    Raises:
        SkipError: there is no loss, it is not finite, or fewer than two layers have a gradient.
    """
    twin = subject.twin()
    if not twin.network.training:
        twin.network.train()
    measured = _Measured(twin, order)
    with random_states_kept(), forced_eager():
        for batch in subject.batches[: max(1, len(subject.batches) // _BATCHES_PER_STEP)]:
            try:
                measured.step(batch)
            except NoLossError as none:
                raise SkipError(str(none)) from none
    return measured.facts()


class _Measured:
    """The layers of a twin that are measured, and what came of it so far."""

    def __init__(self, twin: Subject, order: Sequence[str]) -> None:
        self._twin = twin
        self._modules = dict(twin.network.named_modules())
        self._owners = {name: layer_of(name, order) for name, _ in twin.network.named_parameters()}
        self._depths = _depths_of(set(self._owners.values()), order)
        layers = [layer for layer in order if self._is_measurable(layer)]
        self._layers = [layers[place] for place in _spread_over(len(layers))]
        if not self._layers:
            raise SkipError("it takes two layers with parameters, one above the other")
        self._optimiser, self._rule = _stepping(twin)
        self._found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in self._layers}

    def step(self, batch: Any) -> None:
        """Measures every layer on one mini-batch, and leaves the network updated."""
        network = self._twin.network
        parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        network.zero_grad(set_to_none=True)
        with self._inputs_seen() as moments:
            self._loss(batch).backward()
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        gradients = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        no_step = try_step(self._optimiser)
        if no_step:
            raise SkipError(no_step)
        after = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        for layer in self._layers:
            depth = self._depths[layer]
            with torch.no_grad():
                for buffer, value in buffers:
                    put_back(buffer, value)
                for name, parameter in parameters.items():
                    below = self._depths[self._owners[name]] < depth
                    parameter.copy_(after[name] if below else before[name])
            names = [name for name in gradients if self._owners[name] == layer]
            with self._inputs_seen(layer) as moved:
                loss = self._loss(batch)
            # a layer may have none: what is above it detaches its input
            wanted = [parameters[name] for name in names]
            found = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
            new = [
                torch.zeros_like(gradients[n]) if g is None else g for n, g in zip(names, found, strict=True)
            ]
            apart = _drift(moments.get(layer), moved.get(layer))
            self._found[layer].append((*_compared([gradients[name] for name in names], new), apart))
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(after[name])

    def facts(self) -> tuple[CovariateShift, ...]:
        """Of every layer that is measured."""
        return tuple(
            CovariateShift(layer, self._depths[layer], *_columns(steps), self._rule)
            for layer, steps in self._found.items()
        )

    def _loss(self, batch: Any) -> Tensor:
        torch.manual_seed(0)  # dropout draws the same each time
        with torch.enable_grad():
            loss = self._twin.loss_of(batch, self._twin.outputs(batch))
        if not loss.requires_grad:
            raise SkipError("the loss depends on no parameter that takes a gradient")
        if not all_finite(float(loss.detach()), self._twin):
            raise SkipError("the loss is not finite")
        return loss

    def _is_measurable(self, layer: str) -> bool:
        if self._depths.get(layer, 0) == 0 or is_normaliser(self._modules[layer]):
            return False
        return any(parameter.requires_grad for parameter in self._modules[layer].parameters())

    @contextlib.contextmanager
    def _inputs_seen(self, only: str = "") -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
        """Inside, gathers mean and variance per feature of what layers are given in their first call."""
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        handles = []
        for layer in self._layers if not only else [only]:

            def look(module: nn.Module, args: tuple[Any, ...], layer: str = layer) -> None:
                x = next(filter(Tensor.is_floating_point, tensors_of(args)), None)
                if x is not None and layer not in seen and not is_recomputation():
                    axis = feature_axis(x, bool(features_last(module)))
                    rows = x.detach().movedim(1 if axis is None else axis, 0).flatten(1).float()
                    variance, mean = torch.var_mean(rows, 1, correction=0)
                    seen[layer] = mean, variance

            handles.append(self._modules[layer].register_forward_pre_hook(look))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _depths_of(owners: Collection[str], order: Sequence[str]) -> dict[str, int]:
    """For every layer or module that holds parameters, how many come before it in the forward pass.

    A module that is no layer stands where the first layer inside it does.
    """
    places: dict[str, float] = {layer: place for place, layer in enumerate(order)}

    def place(name: str) -> float:
        inside = (at - 0.5 for layer, at in places.items() if not name or layer.startswith(f"{name}."))
        return places[name] if name in places else min(inside, default=len(order))

    return {name: depth for depth, name in enumerate(sorted(owners, key=place))}


def _spread_over(count: int) -> list[int]:
    """At most `LAYERS` places, evenly spaced, the last among them."""
    some = min(count, LAYERS)
    return [count - 1 - (count * step) // some for step in reversed(range(some))]


def _stepping(twin: Subject) -> tuple[Optimizer, str]:
    """The optimiser that updates the layers below, and what it is."""
    if twin.optimiser is not None and not why_it_cannot_step(twin.optimiser):
        return twin.optimiser, type(twin.optimiser).__name__
    trained = [parameter for parameter in twin.network.parameters() if parameter.requires_grad]
    if not trained:
        raise SkipError("no parameter takes a gradient")
    return torch.optim.SGD(trained, lr=_LR), f"plain SGD, lr {_LR:g}"


def _columns(
    steps: list[tuple[float, float, float, float]],
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    distances, relative, cosines, drift = zip(*steps, strict=True)
    return distances, relative, cosines, drift


def _compared(old: list[Tensor], new: list[Tensor]) -> tuple[float, float, float]:
    """Distance, relative distance and cosine of two gradients, each in parts."""
    distance = math.hypot(*norms_of([b - a for a, b in zip(old, new, strict=True)]))
    length, other = math.hypot(*norms_of(old)), math.hypot(*norms_of(new))
    products = (float((a.double() * b.double()).sum()) for a, b in zip(old, new, strict=True))
    cosine = sum(products) / (length * other) if length and other else math.nan
    return distance, (distance / length if length else math.nan), cosine


def _drift(old: tuple[Tensor, Tensor] | None, new: tuple[Tensor, Tensor] | None) -> float:
    """Root mean square of the means' moves, in deviations, over the features that vary."""
    if old is None or new is None or old[0].shape != new[0].shape:
        return math.nan
    varies = old[1] > 0
    moves = (new[0] - old[0])[varies].double() / old[1][varies].double().sqrt()
    return float(moves.square().mean().sqrt()) if len(moves) else math.nan
