"""How far dropout moves the variance that a batch norm sees, against inference, where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normwright.doctor.missing import Missing, SkipError
from normwright.doctor.structure.graph import Graph
from normwright.doctor.structure.normalisers import NormaliserFacts
from normwright.doctor.subject import Subject
from normwright.network.walk import is_normaliser

_MIXING = ("convolution", "linear", "recurrent", "attention", "embedding")


@dataclass(frozen=True)
class DropoutFacts:
    """A normaliser over the batch that reads what dropout has left, with no other normaliser between.

    Args:
        layer: the normaliser.
        dropout: the nearest dropout above it.
        probability: of that.
        mixed: layers with weights stand between.
        ratio: variance + eps of its input with dropout over the same without, each the mean of the batches'
            unbiased variances, which the running variance moves towards; geometric mean over the channels.
            NaN where it could not be measured.
        error: standard error of that, from how the channels differ.
        where: of the normaliser, or "".
    """

    layer: str
    dropout: str
    probability: float
    mixed: bool
    ratio: float
    error: float
    where: str


def gather_dropout_shift(
    subject: Subject, graph: Graph | Missing, normalisers: tuple[NormaliserFacts, ...]
) -> tuple[DropoutFacts, ...]:
    """The facts of every such normaliser; the network runs only if there is one.

    Args:
        subject: left as it is.
        graph: of its network.
        normalisers: of its network.
    Raises:
        SkipError: there is no graph.
    """
    if isinstance(graph, Missing):
        raise SkipError(graph.because)
    reading: dict[str, tuple[NormaliserFacts, int, bool]] = {}
    for norm in normalisers:
        for place in graph.places(norm.name) if norm.over_batch and norm.tracks else []:
            found = _dropout_above(graph, place)
            if found is not None:
                reading.setdefault(norm.name, (norm, *found))
    if not reading:
        return ()
    names = [name for name, (norm, *_) in reading.items() if not norm.functional]
    ratios = _ratios(subject.twin(), names)
    return tuple(
        DropoutFacts(
            name,
            graph.operations[dropout].name,
            graph.operations[dropout].probability or 0.0,
            mixed,
            *ratios.get(name, (math.nan, math.nan)),
            norm.where,
        )
        for name, (norm, dropout, mixed) in reading.items()
    )


def _dropout_above(graph: Graph, place: int) -> tuple[int, bool] | None:
    """The nearest dropout above an operation with no normaliser between, and whether weights are between."""
    waiting = [(edge.source, False) for edge in graph.feeding(place)]
    seen: set[int] = set()
    while waiting:
        at, mixed = waiting.pop(0)
        operation = graph.operations[at]
        if operation.kind == "dropout" and operation.probability:
            return at, mixed
        if at in seen or operation.kind == "normaliser":
            continue
        seen.add(at)
        waiting += [(edge.source, mixed or operation.kind in _MIXING) for edge in graph.feeding(at)]
    return None


def _ratios(twin: Subject, names: list[str]) -> dict[str, tuple[float, float]]:
    network = twin.network
    norms = {name: network.get_submodule(name) for name in names}
    if not network.training:
        network.train()
    with_dropout = _variances(twin, norms)
    # those above too, whose running statistics would tell of another input
    modes = {module: module.training for module in network.modules() if is_normaliser(module)}
    network.eval()
    for module, training in modes.items():
        module.training = training
    without = _variances(twin, norms)
    return {
        name: _ratio(with_dropout[name], without[name])
        for name in names
        if name in with_dropout and name in without
    }


def _ratio(one: Tensor, other: Tensor) -> tuple[float, float]:
    kept = (one > 0) & (other > 0) & one.isfinite() & other.isfinite()
    logs = (one[kept] / other[kept]).log()
    if not len(logs):
        return math.nan, math.nan
    ratio = float(logs.mean().exp())
    # of a single channel nothing tells how far it would be off
    return ratio, ratio * float(logs.std() / math.sqrt(len(logs))) if len(logs) > 1 else math.inf


def _variances(subject: Subject, norms: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Variance + eps of each channel of each normaliser's first input in a batch, (C,) in float64.

    The mean over the batches: of a few samples dropout may leave a channel nothing.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in norms}
    read: set[str] = set()

    def watch(name: str) -> Callable[..., None]:
        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            if name not in read and args and isinstance(args[0], Tensor) and args[0].dim() > 1:
                read.add(name)
                x = args[0].detach().double().transpose(0, 1).flatten(1)
                if x.shape[1] > 1:
                    found[name].append(x.var(1) + float(getattr(norms[name], "eps", 0.0)))

        return note

    handles = [norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items()]
    try:
        with torch.no_grad():
            for batch in subject.batches:
                read.clear()
                subject.outputs(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.stack(variances).mean(0) for name, variances in found.items() if variances}
