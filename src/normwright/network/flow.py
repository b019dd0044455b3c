"""Which value feeds which, in a whole network: every operator of one call, as a graph."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

# Reads a tensor to check it, and hands nothing on.
_ONLY_CHECKS = frozenset({"aten._assert_tensor_metadata", "aten.sym_size", "aten._assert_async"})


@dataclass(frozen=True, eq=False)
class Flow:
    """The operators of one call of a network, in the order in which they run.

    Args:
        graph: of ATen's operators; parameters, buffers and the call's tensors are placeholders.
        names: qualified names of the parameters and buffers, by placeholder.
        tensors: parameters, buffers and constants themselves, by placeholder.
        how: what traced it: "torch.export", "torch.fx" or "recording".
        note: what must be taken for granted, or "".
    """

    graph: Graph
    names: Mapping[Node, str]
    tensors: Mapping[Node, Tensor]
    how: str
    note: str = ""

    def readers(self, value: Node) -> list[Node]:
        """The operators that read a value, and the output where it is returned."""
        return [reader for reader in value.users if operator_of(reader) not in _ONLY_CHECKS]

    def is_constant(self, value: Any) -> bool:
        """Whether a value depends on parameters, buffers and constants alone."""
        return not isinstance(value, Node) or value in self._constants

    @functools.cached_property
    def _constants(self) -> set[Node]:
        found = set(self.tensors)
        for node in self.graph.nodes:
            if node.op == "call_function" and not writes(node) and found.issuperset(node.all_input_nodes):
                found.add(node)
        return found

    def constant(self, value: Any) -> Any:
        """A constant value, computed in float64."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.constant(part) for part in value)
        if not isinstance(value, Node):
            return value
        if value in self.tensors:
            tensor = self.tensors[value].detach()
            return tensor.to(torch.float64) if tensor.is_floating_point() else tensor
        if operator_of(value) in ("aten.to", "aten._to_copy"):
            return self.constant(value.args[0])
        given = [self.constant(part) for part in value.args]
        named = {name: self.constant(part) for name, part in value.kwargs.items()}
        with torch.no_grad():
            return value.target(*given, **named)  # type: ignore[operator]


def operator_of(node: Node) -> str:
    """The name of a node's operator without its overload, such as "aten.conv2d"; "" where it has none."""
    if node.op != "call_function":
        return ""
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else schema.name.replace("::", ".")


def arguments_of(node: Node) -> dict[str, Any]:
    """What an operator is called with, by its schema's names, defaults included."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    return {**defaults, **given, **node.kwargs}


def writes(node: Node) -> bool:
    """Whether an operator writes into one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def shape_of(value: Node) -> tuple[int, ...]:
    """The shape that a value has with the example."""
    # Asking a symbol for its number as such would bind the program to it.
    sizes = value.meta["val"].shape
    return tuple(int(size.node.hint) if isinstance(size, torch.SymInt) else int(size) for size in sizes)


def calls_around(node: Node) -> tuple[tuple[str, str], ...]:
    """The calls of modules that a node stands in, outermost first: (call, qualified name of the module).

    Two calls of one module have different first parts.
    """
    stack = node.meta.get("nn_module_stack") or {}
    return tuple((call, where[0].partition("@")[0]) for call, where in stack.items())
