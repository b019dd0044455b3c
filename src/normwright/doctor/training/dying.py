"""Layers with units that are never active."""

from __future__ import annotations

from collections.abc import Iterator

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import Fault
from normwright.doctor.thresholds import THRESHOLDS


def dead_faults(evidence: Evidence, units: str, *, spatial: bool) -> Iterator[Fault]:
    """One fault for each layer with dead units.

    Args:
        evidence: of a network.
        units: what they are called.
        spatial: units with several positions in a sample (channels), or with one.
    Raises:
        SkipError: there are such layers, but none was shown enough elements.
    """
    layers = [
        facts
        for facts in evidence.activations
        if facts.units and facts.spatial == spatial and not any(spread.nonfinite for spread in facts.outputs)
    ]
    enough = THRESHOLDS["dead_seen"].value
    if layers and all(facts.seen < enough for facts in layers):
        most = max(facts.seen for facts in layers)
        raise SkipError(f"it takes {enough:g} elements of each of the {units}, but at most {most} came")
    for facts in layers:
        share = len(facts.dead) / facts.units
        if facts.seen >= enough and share >= THRESHOLDS["dead_few"].value:
            many = share >= THRESHOLDS["dead_share"].value
            yield Fault(
                facts.layer, f"{len(facts.dead)} of {facts.units} {units} are never active in {facts.seen:,} "
                "elements each", share, "dead_share" if many else "dead_few", None if many else "note",
            )  # fmt: skip
