"""A fix made on a copy, with the evidence before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from normwright.doctor.diagnosis import Diagnosis
from normwright.doctor.finding import Finding
from normwright.doctor.rule import all_rules
from normwright.doctor.subject import Subject


@dataclass(frozen=True, eq=False)
class Treatment:
    """What a fix came to.

    Args:
        network, optimiser: the mended copies.
        before: the finding that was treated.
        after: what the same rule finds in the same layer now; None where it finds nothing.
    """

    network: nn.Module = field(repr=False)
    optimiser: Optimizer | None = field(repr=False)
    before: Finding
    after: Finding | None

    @property
    def mended(self) -> bool:
        """Whether the finding is gone."""
        return self.after is None


def treat(finding: Finding, subject: Subject, examine: Callable[[Subject], Diagnosis]) -> Finding:
    """The finding, told how it is treated where its rule says how.

    Args:
        finding: of any rule.
        subject: that it was found in.
        examine: asks the same rule about a subject.
    """
    mend = all_rules()[finding.rule].treat
    if mend is None or not finding.mechanical:
        return finding

    def make(finding: Finding) -> Treatment:
        network, optimiser = mend(subject.twin(), finding)
        mended = dataclasses.replace(subject, network=network, optimiser=optimiser)
        left = [found for found in examine(mended).findings if found.layer == finding.layer]
        return Treatment(network, optimiser, finding, left[0] if left else None)

    return dataclasses.replace(finding, treatment=make)
