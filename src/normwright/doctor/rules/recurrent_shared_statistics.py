"""A batch norm inside a recurrence or after one, with one set of running statistics for all steps."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.structure.graph import Graph
from normwright.doctor.structure.repeats import is_unrolled
from normwright.doctor.subject import Subject
from normwright.network.conversion.convert import convert


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each batch norm that is called once per step, or that is given all steps at once."""
    for norm in evidence.normalisers:
        if not (norm.tracks and norm.over_batch) or norm.functional:
            continue
        places = evidence.graph.places(norm.name)
        if is_unrolled(evidence.graph, places):
            yield Fault(
                norm.name,
                f"it is called at each of {len(places)} steps of a recurrence, all of which move one running "
                "mean and variance",
                len(places),
                where=norm.where,
                mechanical=norm.known,
            )
        elif recurrence := next(filter(None, (_all_steps_of(evidence.graph, it) for it in places)), ""):
            # outside the recurrence it does no worse than average over steps, and some networks are built so
            # (Laurent et al. 2016, arXiv:1510.01378)
            yield Fault(
                norm.name,
                f"one mean and variance serve all steps of {recurrence}, which are given to it at once",
                severity="note",
                where=norm.where,
                mechanical=norm.known,
            )


def _all_steps_of(graph: Graph, place: int) -> str:
    """The recurrent layer of which a call reads what it gave at all steps, or ""."""
    operation = graph.operations[place]
    for edge in graph.feeding(place)[:1]:
        source = graph.operations[edge.source]
        # what it gives besides, the last state, has no more vectors than there are samples
        given, steps = math.prod(operation.input_shape), math.prod(source.input_shape[:2])
        if source.kind == "recurrent" and len(source.input_shape) == 3 and given == steps * source.shape[-1]:
            return source.name
    return ""


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Makes it a layer norm, which has moments for each sample and step."""
    network = convert(subject.network, "layer", names=[finding.layer], lossy=True, inplace=True)
    return network, subject.optimiser


def healthy() -> Subject:
    """Layer norm at each step, and batch norm over the inputs of all steps at once."""
    return _subject(nn.LayerNorm(4))


def sick() -> Subject:
    """Batch norm at each step."""
    return _subject(nn.BatchNorm1d(4))


class _Recurrent(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.at_once = nn.BatchNorm1d(4)
        self.from_input = nn.Linear(4, 4)
        self.from_state = nn.Linear(4, 4, bias=False)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, 4) -> (N, 4)."""
        x = self.from_input(self.at_once(x.transpose(1, 2)).transpose(1, 2))
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = torch.tanh(self.norm(self.from_state(state) + x[:, step]))
        return state


def _subject(norm: nn.Module) -> Subject:
    return Subject(_Recurrent(norm), (torch.randn(8, 5, 4),))


RULE = Rule(
    name="recurrent_shared_statistics",
    what="A batch norm serves every step of a recurrence with one set of running statistics.",
    why="The distribution of a recurrent state changes over the steps, most of all over the first ones; in "
    "inference every step is normalised by the mean over all of them.",
    advice="Use layer norm, or a batch norm of its own for each step (the last one's for all after it).",
    references=(
        "Cooijmans et al. 2017, arXiv:1603.09025, section 4",
        "Ba et al. 2016, arXiv:1607.06450",
        "Laurent et al. 2016, arXiv:1510.01378",
    ),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
    static=True,
)
