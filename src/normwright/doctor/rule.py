"""What a rule is: a file of `rules/` that ends in one of these."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

from torch import nn
from torch.optim import Optimizer

from normwright.doctor import rules
from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding, Severity
from normwright.doctor.missing import SkipError
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS


@dataclass(frozen=True)
class Fault:
    """What a rule's check saw in one place.

    Args:
        layer: qualified name of the module, parameter or call, or "" for the network as a whole.
        message: one sentence with the figure.
        value: the figure, or None where the defect is one of structure.
        threshold: a name in `THRESHOLDS` that the figure is held against, or "".
        severity: where it differs from the rule's.
        where: file and line of the code, or "".
        mechanical: the rule's treatment can mend this one.
        advice: where it differs from the rule's.
    """

    layer: str
    message: str
    value: float | None = None
    threshold: str = ""
    severity: Severity | None = None
    where: str = ""
    mechanical: bool = True
    advice: str = ""


class Treat(Protocol):
    """Mends a copy in place, and returns it (or another network in its place) and its optimiser."""

    def __call__(self, subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
        """Mends the subject's network or optimiser, which is a twin."""


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong.

    Args:
        name: its file's.
        what: the defect, in one sentence.
        why: why it matters.
        advice: what to do.
        references: papers and documentation.
        severity: of its findings, unless one says otherwise.
        check: yields a fault for each place; raises SkipError where it cannot judge. It runs nothing.
        healthy, sick: a subject without and one with the defect, from which the rule is tested.
        treat: makes the change where that is mechanical.
        static: judged from the network's structure and its optimiser alone, without running it.
        causal: it yields a cause before what follows from it, so that its findings are shown in that order
            and not by their figures.
    """

    name: str
    what: str
    why: str
    advice: str
    references: tuple[str, ...]
    severity: Severity
    check: Callable[[Evidence], Iterable[Fault]]
    healthy: Callable[[], Subject]
    sick: Callable[[], Subject]
    treat: Treat | None = None
    static: bool = False
    causal: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a rule came to: findings, or a pass, or skipped for a reason."""

    rule: str
    outcome: Literal["finding", "pass", "skipped"]
    because: str = ""


@cache
def all_rules() -> dict[str, Rule]:
    """Every rule by its name, in the order of the names: one for each file of `rules/`."""
    names = sorted(module.name for module in pkgutil.iter_modules(rules.__path__))
    return {name: importlib.import_module(f"{rules.__name__}.{name}").RULE for name in names}


def judge(rule: Rule, evidence: Evidence) -> tuple[Outcome, tuple[Finding, ...]]:
    """What a rule finds in the evidence."""
    try:
        findings = tuple(_finding(rule, fault) for fault in rule.check(evidence))
    except SkipError as skip:
        return Outcome(rule.name, "skipped", str(skip)), ()
    return Outcome(rule.name, "finding" if findings else "pass"), findings


def _finding(rule: Rule, fault: Fault) -> Finding:
    threshold = THRESHOLDS[fault.threshold] if fault.threshold else None
    return Finding(
        rule.name,
        fault.severity or rule.severity,
        fault.layer,
        fault.message,
        fault.value,
        None if threshold is None else threshold.value,
        "" if threshold is None else threshold.source,
        fault.advice or rule.advice,
        fault.where,
        fault.mechanical,
    )
