"""What is known of a network before any rule looks: facts, gathered once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.optim.swa_utils import AveragedModel

from normwright.doctor.missing import Missing, SkipError, part_or_missing
from normwright.doctor.random_states import random_states_kept
from normwright.doctor.statistics.company import CompanyFacts
from normwright.doctor.statistics.counting import CountFacts, Counts
from normwright.doctor.statistics.drift import Drift
from normwright.doctor.statistics.dropout_shift import DropoutFacts, gather_dropout_shift
from normwright.doctor.statistics.modes import ModeFacts
from normwright.doctor.statistics.moments import MomentFacts
from normwright.doctor.statistics.padding import PaddingFacts
from normwright.doctor.statistics.passes import RefusedBatch, run_passes
from normwright.doctor.statistics.ranks import RankFacts, ranks_of
from normwright.doctor.statistics.running import RunningFacts
from normwright.doctor.statistics.sights import SightObserver
from normwright.doctor.structure.graph import Graph
from normwright.doctor.structure.kernels import KernelFacts, kernels_of
from normwright.doctor.structure.normalisers import NormaliserFacts, normalisers_of
from normwright.doctor.structure.parameters import ParameterFacts, parameters_of
from normwright.doctor.structure.tracing import gather_graph
from normwright.doctor.subject import Subject
from normwright.doctor.training.activations import ActivationFacts
from normwright.doctor.training.covariate_shift import CovariateShift, covariate_shift_of
from normwright.doctor.training.gradients import GradientFacts, LayerGradients
from normwright.doctor.training.inputs import InputFacts
from normwright.doctor.training.observed import nothing_seen, observed
from normwright.doctor.training.scales import ScaleFacts

#: Told in a few words what is done next.
OnStage = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The facts that rules read.

    A part that could not be gathered raises SkipError, with the reason, when it is read.

    Args:
        network: the network's class's name.
        optimiser: the optimiser's class's name, or "" where none came.
        sizes: samples of each batch of the loader, as far as known.
        accumulation: mini-batches for each step of the optimiser.
        averaged: the network holds averaged weights.
        parameters: of the network, in its order.
        graph: what feeds what, in one call in training mode.
        normalisers: their settings, in the network's order, and then functions' calls.
        kernels: which fused kernel would serve each normaliser.
        dropout_shifts: of normalisers over the batch that read what dropout has left.
        activations: of layers, in the order of the forward pass.
        inputs: of the network.
        losses: of each mini-batch.
        gradients: of each parameter.
        layer_gradients: of each layer, in the order of the forward pass.
        scales: weights of normalisers.
        covariate_shift: of a few layers, in the order of the forward pass.
        moments: of each normaliser that ran, in the order of the forward pass.
        running: running statistics of each that keeps some, against the population.
        modes: outputs in training and inference mode, compared.
        company: a batch in inference mode against its halves.
        padding: of batch normalisers over positions of which some are padding.
        ranks: whether all hold the same network.
        counts: how often normalisers ran and moved their statistics in the trial.
        refused: batches that the network cannot be trained on.
    """

    network: str
    optimiser: str
    sizes: tuple[int, ...]
    accumulation: int
    averaged: bool
    parameters: tuple[ParameterFacts, ...]
    graph: Graph
    normalisers: tuple[NormaliserFacts, ...]
    kernels: tuple[KernelFacts, ...]
    dropout_shifts: tuple[DropoutFacts, ...]
    activations: tuple[ActivationFacts, ...]
    inputs: tuple[InputFacts, ...]
    losses: tuple[float, ...]
    gradients: tuple[GradientFacts, ...]
    layer_gradients: tuple[LayerGradients, ...]
    scales: tuple[ScaleFacts, ...]
    covariate_shift: tuple[CovariateShift, ...]
    moments: tuple[MomentFacts, ...]
    running: tuple[RunningFacts, ...]
    modes: ModeFacts
    company: CompanyFacts
    padding: tuple[PaddingFacts, ...]
    ranks: RankFacts
    counts: tuple[CountFacts, ...]
    refused: tuple[RefusedBatch, ...]

    if not TYPE_CHECKING:

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if isinstance(value, Missing):
                raise SkipError(value.because)
            return value

    def need_optimiser(self) -> None:
        """Raises SkipError where no optimiser came."""
        if not self.optimiser:
            raise SkipError("no optimiser came")


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
    ranks = part_or_missing(lambda: ranks_of(subject))
    with random_states_kept():
        on_stage("running a copy in training and inference mode")
        passes = run_passes(subject)
        on_stage("tracing the graph")
        graph = part_or_missing(lambda: gather_graph(passes.trainable or subject))
        seen = None if isinstance(graph, Missing) else graph
        normalisers = normalisers_of(subject.network, seen)
        counts, drift = Counts(), Drift(passes.means_and_variances())
        if passes.trainable is None:
            training = nothing_seen(passes.why)
        else:
            on_stage("training a copy, and looking on")
            training = observed(passes.trainable, [SightObserver(counts, drift)])
        on_stage("updating the layers below each layer")
        return Evidence(
            network=type(subject.network).__name__,
            optimiser="" if subject.optimiser is None else type(subject.optimiser).__name__,
            sizes=subject.sizes,
            accumulation=subject.accumulation,
            averaged=subject.averaged or isinstance(subject.network, AveragedModel),
            parameters=parameters_of(subject.network, subject.optimiser),
            graph=graph,
            normalisers=normalisers,
            kernels=kernels_of(subject, seen),
            dropout_shifts=part_or_missing(
                lambda: gather_dropout_shift(passes.need_trainable(), graph, normalisers)
            ),
            activations=training.activations,
            inputs=training.inputs,
            losses=training.losses,
            gradients=training.gradients,
            layer_gradients=training.layer_gradients,
            scales=training.scales,
            covariate_shift=part_or_missing(
                lambda: covariate_shift_of(passes.need_trainable(), training.order)
            ),
            moments=passes.moments(),
            running=part_or_missing(lambda: passes.running(drift)),
            modes=part_or_missing(passes.need_modes),
            company=passes.company,
            padding=part_or_missing(passes.padding.facts),
            ranks=ranks,
            counts=part_or_missing(lambda: counts.facts(passes.need_trainable())),
            refused=passes.refused,
        )
