"""One examination: a patient as it is to be, and what the doctor says of it, in short."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from benchmarks.faults.patients import PATIENTS, Patient
from benchmarks.faults.seeded import Seeded, State
from normwright.doctor.diagnosis import Diagnosis


@dataclass(frozen=True)
class Said:
    """One finding, in short."""

    rule: str
    severity: str
    layer: str
    value: float | None
    threshold: float | None

    @property
    def grave(self) -> bool:
        """It is above a note."""
        return self.severity != "note"


@dataclass(frozen=True)
class Examination:
    """What came of one examination.

    Args:
        findings: all of them.
        silent: for each rule that found nothing, "" where it passed, else why it was skipped.
        error: what was raised instead, or "".
    """

    findings: tuple[Said, ...]
    silent: Mapping[str, str]
    error: str = ""


def made_sick(fault: Seeded, state: State) -> Patient:
    """The patient with the fault, and trained with it or before it where the state asks for that."""
    patient = PATIENTS[fault.network]()
    if state == "fresh":
        return fault.plant(patient)
    return fault.plant(patient.train()) if fault.after_training else fault.plant(patient).train()


def examined(patient: Patient) -> Examination:
    """What the doctor says of a patient."""
    try:
        return in_short(patient.diagnose())
    except Exception as error:
        return Examination((), {}, f"{type(error).__name__}: {error}".splitlines()[0])


def in_short(diagnosis: Diagnosis) -> Examination:
    """A diagnosis as plain values."""
    said = tuple(
        Said(found.rule, found.severity, found.layer, found.value, found.threshold)
        for found in diagnosis.findings
    )
    silent = {it.rule: it.because for it in diagnosis.outcomes if it.outcome != "finding"}
    return Examination(said, silent)


def begin() -> None:
    """Settings of a process that examines."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
