"""What an examination came to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import SEVERITIES, Finding, Severity
from normwright.doctor.in_short import finite_json, in_short
from normwright.doctor.rule import Outcome, all_rules
from normwright.network.counting import how_many
from normwright.network.table import Table

MOST = 3  # rows that one rule takes in a table, which shows the worst: a deep network has a hundred layers


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

    def grouped(self) -> tuple[tuple[Finding, ...], ...]:
        """The findings of each rule and severity together: the gravest first, and in each the worst first.

        Or in the order in which they were found, where the rule is causal.
        """

        def place(finding: Finding) -> tuple[int, str]:
            return SEVERITIES.index(finding.severity), finding.rule

        groups = itertools.groupby(sorted(self.findings, key=place), key=place)
        return tuple(
            tuple(group) if all_rules()[rule].causal else tuple(sorted(group, key=_badness, reverse=True))
            for (_, rule), group in groups
        )

    def record(self) -> dict[str, Any]:
        """The diagnosis as plain values, without the evidence."""
        return {
            "network": self.network,
            "findings": [finding.record() for finding in self.findings],
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }

    def to_json(self, **more: Any) -> str:
        """The record and the evidence in short as JSON; NaN and infinity become null.

        Args:
            more: plain values that the JSON holds beside them.
        """
        return finite_json({**self.record(), **more, "evidence": in_short(self.evidence)})

    def table(self, most: int | None = MOST) -> Table:
        """For a person: the findings by severity, what to do and why that threshold, and who could not judge.

        Args:
            most: rows for each rule, the worst first; None for all.
        """
        passed = sum(outcome.outcome == "pass" for outcome in self.outcomes)
        counted = ", ".join(how_many(self.count(severity), severity) for severity in SEVERITIES)
        groups = self.grouped()
        return Table(
            f"{self.network}: {counted}; {passed} of {how_many(len(self.outcomes), 'rule')} passed.",
            ("severity", "rule", "layer", "what was found", "figure", "threshold", "where"),
            tuple(row for group in groups for row in _rows(group, most)),
            (
                *_notes(groups),
                *(f"skipped {', '.join(names)}: {because}" for because, names in self.skipped().items()),
            ),
        )

    def skipped(self) -> dict[str, tuple[str, ...]]:
        """The rules that could not judge, by the reason."""
        names: dict[str, tuple[str, ...]] = {}
        for outcome in self.outcomes:
            if outcome.outcome == "skipped":
                names[outcome.because] = (*names.get(outcome.because, ()), outcome.rule)
        return names

    def __str__(self) -> str:
        return str(self.table())


def _badness(finding: Finding) -> float:
    """How far a figure is beyond its threshold; findings without figures stay in their order."""
    value, threshold = finding.value, finding.threshold
    if value is None or threshold is None:
        return 0.0
    if math.isnan(value):
        return math.inf
    if threshold > 0 and value >= 0:  # figures that range over decades, to either side
        return abs(math.log(value / threshold)) if 0 < value < math.inf else math.inf
    return abs(value - threshold)


def _rows(group: Sequence[Finding], most: int | None) -> list[tuple[str, ...]]:
    # A row that says "1 more" takes the room of the one.
    shown = len(group) if most is None or len(group) <= most + 1 else most
    rows = [_row(finding) for finding in group[:shown]]
    if shown < len(group):
        figures = [finding.value for finding in group[shown:] if finding.value is not None]
        span = f"{figure(figures[-1])} to {figure(figures[0])}" if figures else ""
        rows.append(("", "", f"and {len(group) - shown} more", "", span, "", ""))
    return rows


def _row(finding: Finding) -> tuple[str, ...]:
    return (
        finding.severity,
        finding.rule,
        finding.layer or "(network)",
        finding.message,
        figure(finding.value),
        figure(finding.threshold),
        finding.where,
    )


def _notes(groups: Iterable[Sequence[Finding]]) -> Iterable[str]:
    """What to do about each rule's findings, and why its threshold."""
    told = dict.fromkeys((first.rule, first.advice, first.threshold, first.because) for first, *_ in groups)
    for rule, advice, threshold, because in told:
        yield f"{rule}: {advice}" + (f" Threshold {figure(threshold)}: {because}." if because else "")


def figure(value: float | None) -> str:
    """A number in three digits.

    Example:
        >>> figure(0.00012345), figure(None)
        ('0.000123', '')
    """
    return "" if value is None else f"{value:.3g}"
