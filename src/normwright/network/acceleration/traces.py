"""The traces of a network's blocks, each made once for as long as it stands."""

from __future__ import annotations

import copy
import dataclasses

from torch import nn

from normwright.network.acceleration.block_trace import OWN_CASE, Case, Trace, trace


class Traces:
    """Traces blocks, and keeps each trace for as long as all that it takes for granted holds.

    A block is planned in training and in inference, and few forwards ask for their mode: the same trace
    serves both, which halves the time.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[nn.Module, frozenset[nn.Module], Case], Trace] = {}

    def of(self, block: nn.Module, inline: frozenset[nn.Module], case: Case = OWN_CASE) -> Trace:
        """As `trace` has it; the graph is the caller's own, to be changed."""
        key = (block, inline, case)
        made = self._made.get(key)
        if made is None or not all(condition.holds(block) for condition in made.conditions):
            made = self._made[key] = trace(block, inline, case)
        return dataclasses.replace(made, graph=copy.deepcopy(made.graph))
