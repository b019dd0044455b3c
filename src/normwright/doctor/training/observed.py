"""What is seen of a network while a copy of it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from normwright.doctor.missing import Missing
from normwright.doctor.subject import Subject
from normwright.doctor.training.activations import ActivationFacts, ActivationObserver
from normwright.doctor.training.gradients import GradientFacts, GradientObserver, LayerGradients, layers_in
from normwright.doctor.training.inputs import InputFacts, InputObserver
from normwright.doctor.training.scales import ScaleFacts, scales_of
from normwright.doctor.training.trial import Course, Observer, train


@dataclass(frozen=True)
class Training:
    """The parts of the evidence that a trial gives; each may be `Missing`.

    Args:
        activations, inputs, losses, gradients, layer_gradients, scales: as in `Evidence`.
        order: names of the layers, in the order of the forward pass.
    """

    activations: tuple[ActivationFacts, ...]
    inputs: tuple[InputFacts, ...]
    losses: tuple[float, ...]
    gradients: tuple[GradientFacts, ...]
    layer_gradients: tuple[LayerGradients, ...]
    scales: tuple[ScaleFacts, ...]
    order: tuple[str, ...]


def observed(subject: Subject, others: Sequence[Observer] = ()) -> Training:
    """Trains a twin for one epoch of the batches, and tells what was seen.

    Args:
        subject: stays as it is.
        others: observers beside those of activations, inputs and gradients.
    Raises:
        OptionError: the network cannot be copied, or the loss is not a scalar.
        Whatever the network or the loss raises.
    """
    twin = subject.twin()
    activations, inputs = ActivationObserver(), InputObserver()
    gradients = GradientObserver(subject.accumulation)
    course = train(twin, [activations, inputs, gradients, *others])
    order = activations.order()
    read = gradients.facts(twin.network)
    none: Any = Missing(_why_no_gradients(course, subject))  # reading it raises, so it has any part's type
    return Training(
        activations.facts(),
        inputs.facts(),
        course.losses or none,
        read or none,
        layers_in(read, order) or none,
        scales_of(subject.network, twin.network),
        order,
    )


def nothing_seen(because: str) -> Training:
    """The parts of a trial that could not be made."""
    none: Any = Missing(because)
    return Training(none, none, none, none, none, none, ())


def _why_no_gradients(course: Course, subject: Subject) -> str:
    if course.no_gradients:
        return course.no_gradients
    if len(course.losses) < subject.accumulation:
        return f"a step takes {subject.accumulation} mini-batches, but only {len(course.losses)} came"
    return "no parameter takes a gradient"
