"""A normaliser that comes after the activation of its layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.structure.graph import Graph, Operation
from normwright.doctor.structure.tracing import gather_graph
from normwright.doctor.subject import Subject
from normwright.doctor.treatments.reorder import exchange

# Of these, weight and bias are one per channel, and meant for the layer's output. Layer norm stands before or
# after whole blocks, as the architecture has it.
_OF_CHANNELS = ("batch", "synchronised", "renormalised", "frozen", "instance", "group")


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser that reads layer → activation."""
    kinds = {normaliser.name: normaliser.kind for normaliser in evidence.normalisers}
    seen: set[str] = set()
    for place, norm in enumerate(evidence.graph.operations):
        if kinds.get(norm.name) not in _OF_CHANNELS or norm.name in seen:
            continue
        activation = _activation_of(evidence.graph, place)
        if activation is None:
            continue
        seen.add(norm.name)
        layer = evidence.graph.operations[evidence.graph.feeding(activation)[0].source]
        function = evidence.graph.operations[activation]
        yield Fault(
            norm.name,
            f"it normalises what {function.name} has made of the output of {layer.name}, and not that output",
            where=norm.where,
            mechanical=evidence.graph.are_neighbours(activation, place),
        )


def _activation_of(graph: Graph, place: int) -> int | None:
    """The activation that a normaliser reads, if that one reads a convolution or linear layer."""
    while graph.feeding(place):
        place = graph.feeding(place)[0].source
        kind = graph.operations[place].kind
        if kind == "activation":
            above = graph.feeding(place)
            of = graph.operations[above[0].source].kind if above else ""
            return place if of in ("convolution", "linear") else None
        if kind not in ("pooling", "dropout"):
            return None
    return None


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Exchanges the two in their nn.Sequential; the network must be trained on."""
    graph = gather_graph(subject)
    activation = _activation_of(graph, graph.places(finding.layer)[0])
    assert activation is not None
    function: Operation = graph.operations[activation]
    exchange(subject.network, function.name, finding.layer)
    return subject.network, subject.optimiser


def healthy() -> Subject:
    """Convolution, normaliser, activation; and a normaliser before the convolution of a residual block."""
    return _subject(norm_first=True)


def sick() -> Subject:
    """Convolution, activation, normaliser."""
    return _subject(norm_first=False)


def _subject(*, norm_first: bool) -> Subject:
    last_two: list[tuple[str, nn.Module]] = [("norm", nn.BatchNorm2d(4)), ("activation", nn.ReLU())]
    parts = [("conv", nn.Conv2d(3, 4, 3, bias=False)), *(last_two if norm_first else reversed(last_two))]
    return Subject(nn.Sequential(OrderedDict(parts)), (torch.randn(4, 3, 8, 8),))


RULE = Rule(
    name="norm_after_activation",
    what="A normaliser stands after the activation of its layer.",
    why="The output of a convolution or linear layer is nearly symmetric, and a normaliser centres it where "
    "the activation bends; what a ReLU gives is one-sided, and the next layer's input is spread otherwise "
    "again. Some networks train as well, or better, in this order: try both.",
    advice="Put the normaliser between the layer and its activation, and train anew.",
    references=(
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.2",
        "Mishkin et al. 2016, arXiv:1606.02228",
    ),
    severity="note",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
    static=True,
)
