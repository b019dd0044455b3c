"""A batch norm that learns its variance while dropout is on, and uses it when dropout is off."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.dropout_shift import DropoutFacts
from normwright.doctor.structure.graph import Graph
from normwright.doctor.structure.tracing import gather_graph
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.treatments.reorder import exchange


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each batch norm that dropout reaches with no other normaliser between."""
    for facts in evidence.dropout_shifts:
        measured = not math.isnan(facts.ratio)
        if facts.mixed and not (measured and _differs(facts, 1.0)):
            continue  # layers between have evened it out
        message = f"it reads what {facts.dropout} (p = {facts.probability:g}) leaves"
        if measured:
            message += f": its input's variance is {facts.ratio:.2f} times what it is in inference"
        yield Fault(
            facts.layer,
            message,
            max(facts.ratio, 1 / facts.ratio) if measured and facts.ratio else None,
            "dropout_variance" if measured else "",
            None if _differs(facts, THRESHOLDS["dropout_variance"].value) else "note",
            facts.where,
            _are_neighbours(evidence.graph, facts),
        )


def _differs(facts: DropoutFacts, limit: float) -> bool:
    """Whether the ratio is beyond a limit, either way, by more than two standard errors."""
    return facts.ratio - 2 * facts.error > limit or facts.ratio + 2 * facts.error < 1 / limit


def _are_neighbours(graph: Graph, facts: DropoutFacts) -> bool:
    return graph.are_neighbours(graph.places(facts.dropout)[0], graph.places(facts.layer)[0])


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Exchanges the two in their nn.Sequential."""
    graph = gather_graph(subject)
    dropout = graph.feeding(graph.places(finding.layer)[0])[0].source
    exchange(subject.network, graph.operations[dropout].name, finding.layer)
    return subject.network, subject.optimiser


def healthy() -> Subject:
    """Dropout after the last normaliser."""
    return _subject(norm_first=True)


def sick() -> Subject:
    """Dropout right before a normaliser."""
    return _subject(norm_first=False)


def _subject(*, norm_first: bool) -> Subject:
    last_two: list[tuple[str, nn.Module]] = [("norm", nn.BatchNorm1d(16)), ("dropout", nn.Dropout(0.5))]
    parts = [("linear", nn.Linear(8, 16)), ("activation", nn.ReLU())]
    parts += last_two if norm_first else reversed(last_two)
    return Subject(nn.Sequential(OrderedDict(parts)), (torch.randn(64, 8),))


RULE = Rule(
    name="dropout_before_norm",
    what="A batch norm reads what dropout has left.",
    why="Dropout raises the variance of what it lets pass, by 1/(1 - p) or more; the running variance learns "
    "that, and is too large in inference, where there is no dropout.",
    advice="Put dropout after the last batch norm, or use a normaliser without running statistics, or "
    "recalibrate in inference mode (nw.recalibrate).",
    references=("Li et al. 2018 (variance shift), arXiv:1801.05134",),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
    static=False,
)
