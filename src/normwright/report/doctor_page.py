"""The page of a diagnosis: records in, one HTML file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from normwright.doctor.diagnosis import Diagnosis
from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import SEVERITIES
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import all_rules
from normwright.doctor.treatments.mending import Mending
from normwright.report.doctor_findings import cards, mended_lines, skips
from normwright.report.doctor_gradients import gradients_section
from normwright.report.doctor_layers import depth_section, layers_section
from normwright.report.doctor_moments import gap_section, modes_in_words, noise_section
from normwright.report.files import write_whole
from normwright.report.filling import filled
from normwright.report.sections import Section


def render(diagnosis: Diagnosis, *, mending: Mending | None = None, command: str = "") -> str:
    """A diagnosis as one self-contained HTML page, a pure function of its arguments.

    Plotly's script, the styles and all data are in the page; its security policy lets it load nothing and run
    no script but its own. Every name is escaped.

    Args:
        diagnosis: what was found.
        mending: what came of mending it, if that was tried.
        command: that makes the page again, or "".
    """
    evidence = _Parts(diagnosis.evidence)
    activations = evidence.many("activations")
    found = {finding.layer for finding in diagnosis.findings}
    passed = [outcome.rule for outcome in diagnosis.outcomes if outcome.outcome == "pass"]
    return filled(
        "doctor.html.j2",
        styles=("doctor.css",),
        diagnosis=diagnosis,
        counts=[(severity, diagnosis.count(severity)) for severity in SEVERITIES],
        cards=cards(diagnosis),
        mending=mending,
        mended=() if mending is None else mended_lines(mending),
        command=command,
        facts=_facts(diagnosis.evidence),
        layers=evidence.or_why("activations", layers_section(activations, found)),
        depth=depth_section(activations),
        gradients=evidence.or_why(
            "layer_gradients",
            gradients_section(evidence.many("layer_gradients"), evidence.many("covariate_shift")),
        ),
        gap=evidence.or_why("moments", gap_section(evidence.many("moments"), evidence.many("running"))),
        modes=()
        if (modes := evidence.one("modes")) is None
        else modes_in_words(modes, evidence.many("running")),
        noise=evidence.or_why("moments", noise_section(evidence.many("moments"))),
        skips=skips(diagnosis),
        passed=[(name, all_rules()[name].what) for name in passed],
    )


def write(diagnosis: Diagnosis, path: Path, *, mending: Mending | None = None, command: str = "") -> None:
    """Writes the page; at every moment `path` holds a whole page, the old one or the new.

    Raises:
        StoreError: the file cannot be written (no such folder, no room, no permission).
    """
    write_whole(render(diagnosis, mending=mending, command=command), path)


class _Parts:
    """The parts of the evidence, and why one is missing."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def one(self, name: str) -> Any:
        """The part, or None."""
        try:
            return getattr(self._evidence, name)
        except SkipError:
            return None

    def many(self, name: str) -> Sequence[Any]:
        """The part's records, or none."""
        return self.one(name) or ()

    def or_why(self, name: str, section: Section) -> Section:
        """The section; where the part that it draws is missing, one that says why."""
        try:
            getattr(self._evidence, name)
        except SkipError as skip:
            return section if section.views else Section((), empty=f"There is nothing to draw here: {skip}.")
        return section


def _facts(evidence: Evidence) -> list[tuple[str, str]]:
    """How the network was examined, name by name."""
    sizes = sorted(set(evidence.sizes), reverse=True)
    facts = [
        ("network", evidence.network),
        ("optimiser", evidence.optimiser or "none came"),
        ("samples in a batch", ", ".join(map(str, sizes[:3])) + (", …" if len(sizes) > 3 else "")),
    ]
    if evidence.accumulation > 1:
        facts.append(("batches for each step", str(evidence.accumulation)))
    return facts
