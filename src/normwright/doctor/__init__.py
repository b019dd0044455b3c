"""Examines a network: evidence, gathered once, and rules that read it."""

from __future__ import annotations

from normwright.doctor.diagnose import diagnose
from normwright.doctor.diagnosis import Diagnosis
from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Outcome, Rule, all_rules
from normwright.doctor.subject import Subject
from normwright.doctor.treatments.treatment import Treatment

__all__ = [
    "Diagnosis",
    "Evidence",
    "Fault",
    "Finding",
    "Outcome",
    "Rule",
    "Subject",
    "Treatment",
    "all_rules",
    "diagnose",
]
