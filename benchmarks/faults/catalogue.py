"""All seeded faults."""

from __future__ import annotations

from benchmarks.faults import activations, feeding, gradients, optimising, speed, statistics, structure
from benchmarks.faults.seeded import Seeded

_FAMILIES = (structure, optimising, statistics, feeding, activations, gradients, speed)

#: By their names, in the order of the families.
FAULTS: dict[str, Seeded] = {fault.name: fault for family in _FAMILIES for fault in family.FAULTS}
