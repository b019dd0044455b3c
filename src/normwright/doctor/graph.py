"""What feeds each operation of a network, and what reads it: a compact graph of one call."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "input",
    "normaliser",
    "convolution",
    "linear",
    "recurrent",
    "embedding",
    "attention",
    "activation",
    "dropout",
    "pooling",
    "add",
    "multiply",
    "concatenate",
    "other",
    "output",
]


@dataclass(frozen=True)
class Operation:
    """One call: of a leaf layer, or of a function in a forward.

    Args:
        name: qualified name of the module; of a function "module: function", or "module: function#2" where
            it is the second such in that module.
        kind: what it is.
        what: its class's or function's name, such as "BatchNorm2d" or "relu".
        functional: it is a function's call, not a module's.
        around: qualified name of the innermost module whose forward makes the call.
        input_shape: of the first input, or () where that is not known.
        shape: of the output, or ().
        layout: of the output: "contiguous", "channels_last", "strided", or "" where it has no meaning.
        probability: of dropout; None for all else.
        where: file and line of the call, or of the class whose forward makes it; "" where not known.
    """

    name: str
    kind: Kind
    what: str
    functional: bool
    around: str
    input_shape: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    layout: str = ""
    probability: float | None = None
    where: str = ""


@dataclass(frozen=True)
class Edge:
    """One operation reads another.

    Args:
        source, target: places in `Graph.operations`.
        passed: what the value went through on the way that changes no number: reshapes, casts, copies,
            transpositions, such as ("permute", "contiguous").
    """

    source: int
    target: int
    passed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The operations of one training-mode call, in the order in which they ran.

    Args:
        operations: the inputs first, one "output" last.
        edges: what reads what.
        how: what traced it: "torch.export", "torch.fx" or "recording".
        note: what must be taken for granted, or "".
    """

    operations: tuple[Operation, ...]
    edges: tuple[Edge, ...]
    how: str
    note: str = ""

    def feeding(self, place: int) -> list[Edge]:
        """The edges into an operation, in the order of its arguments."""
        return self._into[place]

    def reading(self, place: int) -> list[Edge]:
        """The edges out of an operation."""
        return self._out_of[place]

    def places(self, name: str) -> list[int]:
        """Where the calls of a module, or a function's one call, stand."""
        return [place for place, operation in enumerate(self.operations) if operation.name == name]

    @functools.cached_property
    def _into(self) -> list[list[Edge]]:
        found: list[list[Edge]] = [[] for _ in self.operations]
        for edge in self.edges:
            found[edge.target].append(edge)
        return found

    @functools.cached_property
    def _out_of(self) -> list[list[Edge]]:
        found: list[list[Edge]] = [[] for _ in self.operations]
        for edge in self.edges:
            found[edge.source].append(edge)
        return found
