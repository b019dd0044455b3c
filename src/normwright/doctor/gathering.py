"""Gathers the evidence of a subject: each part once, when it is first read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from torch.optim.swa_utils import AveragedModel

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import Missing, Waiting, part_or_missing
from normwright.doctor.random_states import random_states_kept
from normwright.doctor.statistics.counting import Counts
from normwright.doctor.statistics.drift import Drift
from normwright.doctor.statistics.dropout_shift import gather_dropout_shift
from normwright.doctor.statistics.passes import Passes, run_passes
from normwright.doctor.statistics.ranks import ranks_of
from normwright.doctor.statistics.sights import SightObserver
from normwright.doctor.structure.graph import Graph
from normwright.doctor.structure.kernels import kernels_of
from normwright.doctor.structure.normalisers import NormaliserFacts, normalisers_of
from normwright.doctor.structure.parameters import parameters_of
from normwright.doctor.structure.tracing import gather_graph
from normwright.doctor.subject import Subject
from normwright.doctor.training.covariate_shift import CovariateShift, covariate_shift_of
from normwright.doctor.training.observed import Training, nothing_seen, observed

T = TypeVar("T")

#: Told in a few words what is done next.
OnStage = Callable[[str], None]


def quiet(stage: str) -> None:
    """Tells nobody what is done next."""


def gather(subject: Subject, on_stage: OnStage = quiet) -> Evidence:
    """Everything that rules may ask of a subject, which is left as it was, random states included.

    Args:
        subject: who is examined.
        on_stage: told what is done next.
    Raises:
        Whatever the network or the loss raises on the batches.
    """
    evidence = _waiting(subject, on_stage)
    evidence.read_all()
    return evidence.as_read()


def gather_when_read(subject: Subject, on_stage: OnStage = quiet) -> Evidence:
    """The same, but each part is gathered when it is first read, and what it takes with it.

    Where ranks train together all is gathered now: their networks may wait for one another, and what a rule
    reads depends on what it has seen on its own rank.

    Args:
        subject, on_stage: as in `gather`.
    """
    return _waiting(subject, on_stage) if subject.process_group is None else gather(subject, on_stage)


def _waiting(subject: Subject, on_stage: OnStage) -> Evidence:
    looks, network = _Looks(subject, on_stage), subject.network
    parts: dict[str, Callable[[], Any]] = {
        "parameters": lambda: parameters_of(network, subject.optimiser),
        "graph": lambda: looks.graph,
        "normalisers": lambda: looks.normalisers,
        "kernels": lambda: kernels_of(subject, looks.graph_or_none),
        "dropout_shifts": lambda: looks.dropout_shifts(),
        "activations": lambda: looks.training.activations,
        "inputs": lambda: looks.training.inputs,
        "losses": lambda: looks.training.losses,
        "gradients": lambda: looks.training.gradients,
        "layer_gradients": lambda: looks.training.layer_gradients,
        "scales": lambda: looks.training.scales,
        "covariate_shift": lambda: looks.covariate_shift(),
        "moments": lambda: looks.passes.moments(),
        "running": lambda: looks.running(),
        "modes": lambda: looks.passes.need_modes(),
        "company": lambda: looks.passes.company,
        "padding": lambda: looks.passes.padding.facts(),
        "counts": lambda: looks.counts(),
        "refused": lambda: looks.passes.refused,
    }
    # first of all, while no rank has had a reason to fall behind the others
    ranks = part_or_missing(lambda: ranks_of(subject))
    waiting: dict[str, Any] = {name: Waiting(gathering) for name, gathering in parts.items()}
    return Evidence(
        network=type(network).__name__,
        optimiser="" if subject.optimiser is None else type(subject.optimiser).__name__,
        sizes=subject.sizes,
        accumulation=subject.accumulation,
        averaged=subject.averaged or isinstance(network, AveragedModel),
        ranks=ranks,
        **waiting,
    )


class _Looks:
    """The looks at a subject that several parts of the evidence come from, each taken once, when needed.

    Every look draws from the random states as they came, so that what it sees does not depend on which were
    taken before.
    """

    def __init__(self, subject: Subject, on_stage: OnStage) -> None:
        self._subject, self._on_stage = subject, on_stage
        self._counts = Counts()

    @cached_property
    def passes(self) -> Passes:
        self._on_stage("running a copy in training and inference mode")
        return _drawing_anew(lambda: run_passes(self._subject))

    @cached_property
    def graph(self) -> Graph | Missing:
        subject = self.passes.trainable or self._subject
        self._on_stage("tracing the graph")
        return _drawing_anew(lambda: part_or_missing(lambda: gather_graph(subject)))

    @property
    def graph_or_none(self) -> Graph | None:
        return None if isinstance(self.graph, Missing) else self.graph

    @cached_property
    def normalisers(self) -> tuple[NormaliserFacts, ...]:
        return normalisers_of(self._subject.network, self.graph_or_none)

    @cached_property
    def _drift(self) -> Drift:
        return Drift(self.passes.means_and_variances())

    @cached_property
    def training(self) -> Training:
        subject = self.passes.trainable
        if subject is None:
            return nothing_seen(self.passes.why)
        observer = SightObserver(self._counts, self._drift)
        self._on_stage("training a copy, and looking on")
        return _drawing_anew(lambda: observed(subject, [observer]))

    def dropout_shifts(self) -> Any:
        subject, graph, normalisers = self.passes.need_trainable(), self.graph, self.normalisers
        return _drawing_anew(lambda: gather_dropout_shift(subject, graph, normalisers))

    def covariate_shift(self) -> tuple[CovariateShift, ...]:
        subject, order = self.passes.need_trainable(), self.training.order
        self._on_stage("updating the layers below each layer")
        return _drawing_anew(lambda: covariate_shift_of(subject, order))

    def running(self) -> Any:
        self.passes.need_modes()
        _ = self.training  # which the drift is seen in
        return self.passes.running(self._drift)

    def counts(self) -> Any:
        subject = self.passes.need_trainable()
        _ = self.training
        return self._counts.facts(subject)


def _drawing_anew(look: Callable[[], T]) -> T:
    with random_states_kept():
        return look()
