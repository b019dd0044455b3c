"""What a monitor read in a few steps of training."""

from __future__ import annotations

from dataclasses import dataclass

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding


@dataclass(frozen=True, eq=False)
class Window:
    """Consecutive steps of the optimiser that were watched.

    Args:
        first, last: which steps, counted from 0 since the monitor began.
        evidence: what was read; the rest is missing.
        findings: of the rules that this evidence serves, the gravest first.
    """

    first: int
    last: int
    evidence: Evidence
    findings: tuple[Finding, ...]
