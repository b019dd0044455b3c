"""A bias that the normaliser after it subtracts again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.structure.graph import Graph, Operation
from normwright.doctor.structure.normalisers import NormaliserFacts, normalisers_of
from normwright.doctor.structure.tracing import gather_graph
from normwright.doctor.subject import Subject
from normwright.errors import OptionError
from normwright.network.counting import how_many


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each bias that reaches nothing but normalisers that remove it."""
    sizes = {parameter.name: parameter.shape for parameter in evidence.parameters}
    for bias, pairs in _removed(evidence.graph, evidence.normalisers).items():
        layer, norms = pairs[0][0], dict.fromkeys(norm.name for _, norm in pairs)
        yield Fault(
            layer.name,
            f"its bias of {how_many(sum(sizes[bias]), 'number')} is taken away again by "
            f"{' and '.join(norms)}, which subtracts the mean of each channel",
            where=layer.where,
            mechanical=all(
                not layer.functional and layer.name == bias.rpartition(".")[0] for layer, _ in pairs
            ),
        )


def _removed(
    graph: Graph, normalisers: tuple[NormaliserFacts, ...]
) -> dict[str, list[tuple[Operation, NormaliserFacts]]]:
    """The biases of which nothing is left, each with every call of its layer and the normaliser after it."""
    facts = {normaliser.name: normaliser for normaliser in normalisers}
    found: dict[str, list[tuple[Operation, NormaliserFacts]]] = {}
    kept: set[str] = set()
    for place, operation in enumerate(graph.operations):
        norm = _removes(graph, place, facts) if operation.bias else None
        if norm is not None:
            found.setdefault(operation.bias, []).append((operation, norm))
        # another layer may share it
        kept.update(name for name in operation.parameters if norm is None or name != operation.bias)
    return {bias: pairs for bias, pairs in found.items() if bias not in kept}


def _removes(graph: Graph, place: int, facts: dict[str, NormaliserFacts]) -> NormaliserFacts | None:
    """The normaliser that is all that reads an operation, and subtracts what is constant in a channel."""
    readers = graph.reading(place)
    if len(readers) != 1 or graph.feeding(readers[0].target)[0] != readers[0]:
        return None  # the first that a normaliser reads is its input; a residual may come after
    reader = graph.operations[readers[0].target]
    norm, axis = facts.get(reader.name), readers[0].axis
    if norm is None or axis is None or not (norm.known and norm.by_data):
        return None
    channels_apart = {
        "batch": axis == 1,
        "synchronised": axis == 1,
        "instance": axis == 1,
        # a group of several channels has one mean, which leaves their differences
        "group": axis == 1 and norm.groups == norm.features,
        "layer": norm.axes is not None and axis < len(reader.input_shape) - norm.axes,
    }
    return norm if channels_apart.get(norm.kind) else None


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Drops the bias, and its part of the running mean, so that inference gives the same."""
    network, optimiser = subject.network, subject.optimiser
    bias = network.get_submodule(finding.layer).bias
    if not isinstance(bias, nn.Parameter):
        raise OptionError(f"{finding.layer} must hold its bias as a parameter to lose it: it is computed")
    graph = gather_graph(subject)
    pairs = _removed(graph, normalisers_of(network, graph))[f"{finding.layer}.bias".lstrip(".")]
    with torch.no_grad():
        for name in dict.fromkeys(norm.name for _, norm in pairs if not norm.functional):
            mean: Any = getattr(network.get_submodule(name), "running_mean", None)
            if isinstance(mean, Tensor):
                mean -= bias.to(mean)
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is bias:
                module._parameters[name] = None
    if optimiser is not None:
        _forget(optimiser, bias)
    return network, optimiser


def _forget(optimiser: Optimizer, parameter: nn.Parameter) -> None:
    """Takes a parameter out of its group, which stays, empty or not, where schedulers count on it."""
    for group in optimiser.param_groups:
        group["params"] = [held for held in group["params"] if held is not parameter]
    optimiser.state.pop(parameter, None)


def healthy() -> Subject:
    """Where a norm follows there is no bias; where there is one, group norm keeps it."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.GroupNorm(2, 4),
    )
    return _subject(network)


def sick() -> Subject:
    """A convolution with a bias before batch norm."""
    return _subject(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))


def _subject(network: nn.Module) -> Subject:
    return Subject(
        network,
        (torch.randn(4, 3, 8, 8),),
        optimiser=torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9),
    )


RULE = Rule(
    name="bias_before_norm",
    what="A bias is added where the normaliser that follows subtracts the mean of each channel.",
    why="The bias has no effect and its gradient is rounding error, but it takes memory, a pass over the "
    "gradient and a place in the optimiser; the normaliser's own bias does its work.",
    advice="Make the layer with bias=False.",
    references=("Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.2",),
    severity="note",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
    static=True,
)
