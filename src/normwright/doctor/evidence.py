"""What is known of a network: the facts that rules read."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normwright.doctor.missing import Missing, SkipError, Waiting
from normwright.doctor.statistics.company import CompanyFacts
from normwright.doctor.statistics.counting import CountFacts
from normwright.doctor.statistics.dropout_shift import DropoutFacts
from normwright.doctor.statistics.modes import ModeFacts
from normwright.doctor.statistics.moments import MomentFacts
from normwright.doctor.statistics.padding import PaddingFacts
from normwright.doctor.statistics.passes import RefusedBatch
from normwright.doctor.statistics.ranks import RankFacts
from normwright.doctor.statistics.running import RunningFacts
from normwright.doctor.structure.graph import Graph
from normwright.doctor.structure.kernels import KernelFacts
from normwright.doctor.structure.normalisers import NormaliserFacts
from normwright.doctor.structure.parameters import ParameterFacts
from normwright.doctor.training.activations import ActivationFacts
from normwright.doctor.training.covariate_shift import CovariateShift
from normwright.doctor.training.gradients import GradientFacts, LayerGradients
from normwright.doctor.training.inputs import InputFacts
from normwright.doctor.training.scales import ScaleFacts


@dataclass(frozen=True, eq=False)
class Evidence:
    """The facts that rules read.

    A part that could not be gathered raises SkipError, with the reason, when it is read; one that still waits
    is gathered then.

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
            if isinstance(value, Waiting):
                value = value.part
            if isinstance(value, Missing):
                raise SkipError(value.because)
            return value

    def need_optimiser(self) -> None:
        """Raises SkipError where no optimiser came."""
        if not self.optimiser:
            raise SkipError("no optimiser came")

    def read_all(self) -> None:
        """Reads every part, so that all are gathered."""
        for part in dataclasses.fields(self):
            with contextlib.suppress(SkipError):
                getattr(self, part.name)

    def as_read(self) -> Evidence:
        """What was read so far, for good: the network may change, and is not looked at any more.

        A part that nobody has read raises SkipError.
        """
        return Evidence(
            **{
                name: part.settled() if isinstance(part, Waiting) else part
                for name, part in vars(self).items()
            }
        )
