"""The findings of a diagnosis as the page shows them: one card for each rule, its layers in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normwright.doctor.diagnosis import Diagnosis, figure
from normwright.doctor.finding import Finding
from normwright.doctor.rule import all_rules
from normwright.doctor.treatments.mending import Mended, Mending

SHOWN = 8  # layers of a card; the rest stand behind a click


@dataclass(frozen=True)
class Line:
    """One layer of a card."""

    layer: str
    message: str
    figure: str
    threshold: str
    where: str


@dataclass(frozen=True)
class Card:
    """What one rule found, at one severity."""

    severity: str
    rule: str
    what: str
    why: str
    advice: str
    references: tuple[str, ...]
    threshold: str
    because: str
    treatable: bool
    lines: tuple[Line, ...]
    more: tuple[Line, ...]

    @property
    def measured(self) -> bool:
        """Whether there are figures to show."""
        return any(line.figure or line.threshold for line in (*self.lines, *self.more))


@dataclass(frozen=True)
class MendedLine:
    """One finding before and after its fix."""

    rule: str
    layer: str
    before: str
    after: str
    gone: bool


@dataclass(frozen=True)
class Skip:
    """Rules that could not judge, for one reason."""

    because: str
    rules: tuple[str, ...]


def cards(diagnosis: Diagnosis) -> tuple[Card, ...]:
    """One for each rule and severity, the gravest first."""
    return tuple(map(_card, diagnosis.grouped()))


def _card(group: Sequence[Finding]) -> Card:
    first = group[0]
    rule = all_rules()[first.rule]
    lines = tuple(map(_line, group))
    shown = len(lines) if len(lines) <= SHOWN + 1 else SHOWN
    return Card(
        severity=first.severity,
        rule=first.rule,
        what=rule.what,
        why=rule.why,
        advice=first.advice,
        references=rule.references,
        threshold=figure(first.threshold),
        because=first.because,
        treatable=any(finding.treatable for finding in group),
        lines=lines[:shown],
        more=lines[shown:],
    )


def _line(finding: Finding) -> Line:
    return Line(
        finding.layer or "the network",
        finding.message,
        figure(finding.value),
        figure(finding.threshold),
        finding.where,
    )


def mended_lines(mending: Mending) -> tuple[MendedLine, ...]:
    """One for each finding that has a mechanical fix."""
    return tuple(map(_mended, mending.mended))


def _mended(mended: Mended) -> MendedLine:
    after = mended.because or ("nothing found" if mended.after is None else mended.after.message)
    return MendedLine(
        mended.before.rule, mended.before.layer or "the network", mended.before.message, after, mended.gone
    )


def skips(diagnosis: Diagnosis) -> tuple[Skip, ...]:
    """The rules that could not judge, by the reason."""
    return tuple(Skip(because, rules) for because, rules in diagnosis.skipped().items())
