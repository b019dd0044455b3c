"""The treatment of batches that are too small: moments that do not depend on the batch."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from normwright.doctor.finding import Finding
from normwright.doctor.subject import Subject
from normwright.network.conversion.convert import convert


def to_group_norm(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Turns the batch norm of a finding into group norm, or every one where it is the network's."""
    names = [finding.layer] if finding.layer else None
    network = convert(subject.network, "group", names=names, inplace=True)
    return network, subject.optimiser
