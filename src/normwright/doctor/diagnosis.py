"""What an examination came to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import SEVERITIES, Finding, Severity
from normwright.doctor.rule import Outcome
from normwright.network.table import Table


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Findings, the gravest first, and what every rule came to.

    Args:
        network: the network's class's name.
        findings: of all rules.
        outcomes: one for each rule that was asked.
        evidence: the facts that they were judged by.
    """

    network: str
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    evidence: Evidence = field(repr=False)

    @property
    def worst(self) -> Severity | None:
        """The gravest severity that was found, or None where all is well."""
        return self.findings[0].severity if self.findings else None

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def record(self) -> dict[str, Any]:
        """The diagnosis as plain values, without the evidence."""
        return {
            "network": self.network,
            "findings": [finding.record() for finding in self.findings],
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }

    def to_json(self) -> str:
        """The record as JSON; NaN and infinity become null."""
        finite = json.loads(json.dumps(self.record()), parse_constant=lambda name: None)
        return json.dumps(finite, indent=2, allow_nan=False)

    def table(self) -> Table:
        """For a person: the findings by severity, then which rules could not judge, and why."""
        counts = [f"{self.count(severity)} {severity}{_s(self.count(severity))}" for severity in SEVERITIES]
        passed = sum(outcome.outcome == "pass" for outcome in self.outcomes)
        skipped = [outcome for outcome in self.outcomes if outcome.outcome == "skipped"]
        return Table(
            f"{self.network}: {', '.join(counts)}; {passed} of {len(self.outcomes)} rules passed.",
            ("severity", "rule", "layer", "what was found", "figure", "threshold", "why that threshold"),
            tuple(map(_row, self.findings)),
            tuple(f"skipped {outcome.rule}: {outcome.because}" for outcome in skipped),
        )

    def __str__(self) -> str:
        return str(self.table())


def _row(finding: Finding) -> tuple[str, ...]:
    figures = (f"{value:.3g}" if value is not None else "" for value in (finding.value, finding.threshold))
    return (finding.severity, finding.rule, finding.layer, finding.message, *figures, finding.because)


def _s(count: int) -> str:
    return "" if count == 1 else "s"
