"""Graphs of small networks, traced either way."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn

from normwright.doctor.diagnose import examine
from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.missing import Missing
from normwright.doctor.rule import all_rules, judge
from normwright.doctor.statistics.dropout_shift import gather_dropout_shift
from normwright.doctor.structure.graph import Graph, Operation
from normwright.doctor.structure.graph_of import graph_of
from normwright.doctor.structure.kernels import kernels_of
from normwright.doctor.structure.normalisers import normalisers_of
from normwright.doctor.structure.parameters import parameters_of
from normwright.doctor.structure.tracing import gather_graph
from normwright.doctor.subject import Subject
from normwright.doctor.treatments.treatment import treat
from normwright.network.calling import call_of
from normwright.network.recording import record
from normwright.network.trace import trace

WAYS = ("torch.export", "recording")


def graph_by(way: str, network: nn.Module, *inputs: Tensor) -> Graph:
    """The graph of a call, traced in this way."""
    call = call_of(inputs)
    flow = trace(network, call) if way == "torch.export" else record(network, call, way, "")
    assert flow.how == way
    return graph_of(network, flow)


def operation(graph: Graph, name: str) -> Operation:
    """The one call of that name."""
    (place,) = graph.places(name)
    return graph.operations[place]


def fed_by(graph: Graph, name: str) -> list[str]:
    """Names of what an operation's one call reads, in the order of its arguments."""
    (place,) = graph.places(name)
    return [graph.operations[edge.source].name for edge in graph.feeding(place)]


def found(rule: str, network: nn.Module, *batch: Tensor, **options: Any) -> dict[str, Finding]:
    """What one rule finds in a network, by layer; it must have been able to judge."""
    inputs = batch[0] if len(batch) == 1 else (batch,)
    subject = Subject(network, (inputs,), **options)
    outcome, findings = judge(all_rules()[rule], structure_of(subject))
    assert outcome.outcome != "skipped", outcome
    again = functools.partial(examine, rules=[all_rules()[rule]])
    return {finding.layer: treat(finding, subject, again) for finding in findings}


def structure_of(subject: Subject) -> Evidence:
    """The evidence without what a trial shows, which takes longer."""
    graph = gather_graph(subject)
    normalisers = normalisers_of(subject.network, graph)
    parts: dict[str, Any] = {
        part.name: Missing("only the structure was looked at") for part in dataclasses.fields(Evidence)
    }
    parts |= {
        "parameters": parameters_of(subject.network, subject.optimiser),
        "graph": graph,
        "normalisers": normalisers,
        "kernels": kernels_of(subject, graph),
        "dropout_shifts": gather_dropout_shift(subject, graph, normalisers),
    }
    return Evidence(**parts)


class Calls(nn.Module):
    """A network whose forward is a function that is given its modules.

    Example:
        >>> Calls(lambda m, x: m.a(x).relu(), a=nn.Linear(2, 2))(torch.zeros(1, 2)).shape
        torch.Size([1, 2])
    """

    def __init__(self, function: Any, **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def images(channels: int = 3, size: int = 8, batch: int = 4) -> Tensor:
    """Random ones."""
    return torch.randn(batch, channels, size, size)
