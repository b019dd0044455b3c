"""What is known of a network before any rule looks: facts, gathered once."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.doctor.parameters import ParameterFacts, parameters_of
from normwright.doctor.random_states import random_states_kept
from normwright.doctor.subject import Subject


class SkipError(Exception):
    """A rule cannot judge; the message says what is missing and why."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The facts that rules read.

    A part that could not be gathered raises SkipError, with the reason, when it is read.

    Args:
        network: the network's class's name.
        optimiser: the optimiser's class's name, or "" where none came.
        sizes: samples of each batch of the loader, as far as known.
        accumulation: mini-batches for each step of the optimiser.
        parameters: of the network, in its order.
    """

    network: str
    optimiser: str
    sizes: tuple[int, ...]
    accumulation: int
    parameters: tuple[ParameterFacts, ...]

    def need_optimiser(self) -> None:
        """Raises SkipError where no optimiser came."""
        if not self.optimiser:
            raise SkipError("no optimiser came")


def gather(subject: Subject) -> Evidence:
    """Everything that rules may ask of a subject, which is left as it was, random states included.

    Raises:
        Whatever the network or the loss raises on the batches.
    """
    with random_states_kept():
        return Evidence(
            type(subject.network).__name__,
            "" if subject.optimiser is None else type(subject.optimiser).__name__,
            subject.sizes,
            subject.accumulation,
            parameters_of(subject.network, subject.optimiser),
        )
