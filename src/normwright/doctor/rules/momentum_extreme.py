"""A momentum that makes the running statistics those of the last batch, or of no batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS

_DEFAULT = 0.1

# With 5 % of the initial statistics left, the experiment of THRESHOLDS["momentum_slow"] loses accuracy still.
_INITIAL = 0.01


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose moving average covers too few batches, or too many."""
    greatest = THRESHOLDS["momentum_greatest"].value
    least = THRESHOLDS["momentum_least"].value
    slow = THRESHOLDS["momentum_slow"].value
    for norm in evidence.normalisers:
        # None is the mean over all batches; what is frozen does not move, and is meant not to
        momentum = norm.momentum
        if momentum is None or not norm.tracks or not norm.by_data:
            continue
        mechanical = not norm.functional
        if momentum == 0.0:
            yield Fault(
                norm.name,
                "momentum 0: no batch ever moves its running statistics, by which it normalises in inference",
                momentum,
                "momentum_least",
                "error",
                norm.where,
                mechanical,
            )
        elif not 0 < momentum <= 1:
            yield Fault(
                norm.name,
                f"momentum {momentum:g} is no share: the newest batch weighs {momentum:g} in its running "
                f"statistics and all before it {1 - momentum:g}, which is no mean",
                momentum,
                "momentum_greatest" if momentum > 1 else "momentum_least",
                "error",
                norm.where,
                mechanical,
            )
        elif momentum > greatest:
            yield Fault(
                norm.name,
                f"momentum {momentum:g}: its running statistics {_averaged(momentum)}{_keras(momentum)}",
                momentum,
                "momentum_greatest",
                where=norm.where,
                mechanical=mechanical,
            )
        elif momentum < least:
            yield Fault(
                norm.name,
                f"momentum {momentum:g}: after 1,000 batches {(1 - momentum) ** 1000:.0%} of its running "
                "statistics are still the initial 0 and 1",
                momentum,
                "momentum_least",
                where=norm.where,
                mechanical=mechanical,
            )
        elif momentum < slow:
            yield Fault(
                norm.name,
                f"momentum {momentum:g}: {_until_known(momentum):,.0f} batches must pass until less than "
                f"{_INITIAL:.0%} of its running statistics are the initial 0 and 1",
                momentum,
                "momentum_slow",
                "note",
                norm.where,
                mechanical,
            )


def _until_known(momentum: float) -> float:
    """How many batches it takes until (1 − momentum)^batches, the weight of the initial 0 and 1, is small."""
    return math.ceil(math.log(_INITIAL) / math.log1p(-momentum))


def _averaged(momentum: float) -> str:
    """How many batches of equal weight have a mean as noisy as the moving average: 1/Σ weights²."""
    if momentum == 1:
        return "are those of the newest batch alone"
    return f"average {(2 - momentum) / momentum:.3g} batches"


def _keras(momentum: float) -> str:
    if not 0.8 <= momentum < 1:
        return ""
    return (
        f"; in Keras and TensorFlow {momentum:g} is what the old value is kept by, which here is momentum "
        f"{1 - momentum:.3g}"
    )


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Takes a momentum in Keras's sense for what it was meant to be, and any other to PyTorch's default."""
    norm: Any = subject.network.get_submodule(finding.layer)
    meant = 1 - float(finding.value or 0.0)
    usable = THRESHOLDS["momentum_least"].value <= meant <= 0.2
    norm.momentum = round(meant, 12) if usable else _DEFAULT
    return subject.network, subject.optimiser


def healthy() -> Subject:
    """PyTorch's default, Keras's default in PyTorch's sense, and the mean over all batches."""
    return _subject(0.1, 0.01, None)


def sick() -> Subject:
    """Keras's default as it is written there, the last batch alone, none at all, hardly any, and slow."""
    return _subject(0.99, 1.0, 0.0, 1e-5, 1e-3)


def _subject(*momenta: float | None) -> Subject:
    norms = [nn.BatchNorm1d(4, momentum=momentum) for momentum in momenta]
    return Subject(nn.Sequential(*norms), (torch.randn(8, 4),))


RULE = Rule(
    name="momentum_extreme",
    what="The momentum of the running statistics is so large that they are the last batch's, or so small "
    "that they hardly move.",
    why="Inference normalises by the running statistics: an average of one or two batches is as noisy as "
    "they are, and one that does not move describes no batch. PyTorch's momentum is the weight of the newest "
    "batch; in Keras and TensorFlow it is the weight of the old value.",
    advice="Take momentum=0.1, or None for the mean over all batches, and recalibrate (nw.recalibrate).",
    references=(
        "PyTorch documentation, torch.nn.BatchNorm2d, note on momentum",
        "Keras documentation, BatchNormalization, argument momentum",
    ),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
    static=True,
)
