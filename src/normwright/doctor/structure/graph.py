"""What feeds each operation of a network, and what reads it: a compact graph of one call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

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
            it is the second such in one call of that module.
        kind: what it is.
        what: its class's or function's name, such as "BatchNorm2d" or "relu".
        functional: it is a function's call, not a module's.
        around: qualified name of the innermost module whose forward makes the call.
        in_sequence: it is called by the nn.Sequential that holds it.
        input_shape: of the first input, or () where that is not known.
        shape: of the output, or ().
        input_layout, layout: of the first input and the output: "contiguous", "channels_last", "strided", or
            "" where it is contiguous both ways, or not known.
        parameters: qualified names of those that it reads.
        bias: which of them is added to the output of a convolution or linear layer, or "".
        probability: of dropout, 0 where it lets all pass; None for all else.
        settings: what a function was called with beside tensors, by the operator's names; "tensor" for one.
        where: file and line of the call, or of the class whose forward makes it; "" where not known.
    """

    name: str
    kind: Kind
    what: str
    functional: bool
    around: str
    in_sequence: bool = False
    input_shape: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    input_layout: str = ""
    layout: str = ""
    parameters: tuple[str, ...] = ()
    bias: str = ""
    probability: float | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    where: str = ""


@dataclass(frozen=True)
class Edge:
    """One operation reads another.

    Args:
        source, target: places in `Graph.operations`.
        passed: what the value went through on the way that changes no number: reshapes, casts, copies,
            transpositions, such as ("permute", "contiguous").
        copied: some of that wrote the same numbers into memory again, in another order.
        layout: as the target reads it, in `Operation.layout`'s words.
        axis: of the target's input, along which the channels of a convolution or linear layer lie, all of
            them and nothing else; None where they lie otherwise, or the source is no such layer.
    """

    source: int
    target: int
    passed: tuple[str, ...] = ()
    copied: bool = False
    axis: int | None = None
    layout: str = ""


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

    def above(self, place: int) -> set[int]:
        """Every operation that an operation depends on."""
        return _reached(place, lambda at: [edge.source for edge in self._into[at]])

    def below(self, place: int) -> set[int]:
        """Every operation that depends on an operation."""
        return _reached(place, lambda at: [edge.target for edge in self._out_of[at]])

    def places(self, name: str) -> list[int]:
        """Where the calls of a module or function stand."""
        return [place for place, operation in enumerate(self.operations) if operation.name == name]

    def are_neighbours(self, first: int, second: int) -> bool:
        """Whether two modules stand one right after the other in an nn.Sequential, and are called once."""
        one, other = self.operations[first], self.operations[second]
        return (
            one.in_sequence
            and other.in_sequence
            and one.around == other.around
            and [edge.target for edge in self.reading(first)] == [second]
            and not self.reading(first)[0].passed
            and all(len(self.places(operation.name)) == 1 for operation in (one, other))
        )

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


def _reached(place: int, onwards: Callable[[int], list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = onwards(place)
    while waiting:
        at = waiting.pop()
        if at not in found:
            found.add(at)
            waiting += onwards(at)
    return found
