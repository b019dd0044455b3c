"""Which value feeds which, in a whole network: every operator of one call, as a graph."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

# What Dynamo may put before a module's name in a strict program: PyTorch takes away other spellings alone.
_EXPORTED_ROOT = re.compile(r"(__dict__\['_modules'\]\['_export_root'\]|_export_root)(\.|$)")

# Reads a tensor to check it, and hands nothing on.
_ONLY_CHECKS = frozenset({"aten._assert_tensor_metadata", "aten.sym_size", "aten._assert_async"})

# Reads of one argument its shape and dtype alone.
_READS_NO_NUMBERS = {
    **dict.fromkeys(("reshape_as", "view_as", "expand_as", "type_as"), "other"),
    **dict.fromkeys(
        ("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"), "self"
    ),
    **dict.fromkeys(("new_empty", "new_zeros", "new_ones", "new_full"), "self"),
}

_MAY_RETURN_THEIR_INPUT = frozenset(
    f"aten.{name}" for name in ("dropout", "feature_dropout", "alpha_dropout", "to", "contiguous", "reshape")
)


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
        """The operators that read a value's numbers, and the output where it is returned."""
        readers = [reader for reader in value.users if operator_of(reader) not in _ONLY_CHECKS]
        return [reader for reader in readers if not _reads_no_numbers(reader, value)]

    def is_constant(self, value: Any) -> bool:
        """Whether a value depends on parameters, buffers and constants alone."""
        return not isinstance(value, Node) or value in self._constants

    @functools.cached_property
    def _constants(self) -> set[Node]:
        overwritten: set[Node] = set()
        for node in self.graph.nodes:
            for value in written_by(node):
                overwritten |= memory_of(value)
        found = set(self.tensors) - overwritten
        for node in self.graph.nodes:
            if node.op != "call_function" or writes(node) or node in overwritten:
                continue
            if found.issuperset(node.all_input_nodes):
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


def _reads_no_numbers(reader: Node, value: Node) -> bool:
    asked = _READS_NO_NUMBERS.get(operator_of(reader).removeprefix("aten."))
    if asked is None:
        return False
    given = arguments_of(reader)
    return all(argument is not value for name, argument in given.items() if name != asked)


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
    return bool(written_by(node))


def written_by(node: Node) -> tuple[Node, ...]:
    """The values that an operator writes into, lists and `out=` included.

    One without a schema, which may run a graph of its own, is taken to write into all that it is given,
    unless its graphs are known and none of their operators writes.
    """
    if node.op != "call_function" or getattr(node.target, "__name__", "") == "getitem":
        return ()
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        tensors = [given for given in node.all_input_nodes if _holds_tensors(given)]
        return () if _inner_graphs_only_read(node) else tuple(tensors)
    if not schema.is_mutable:
        return ()
    given = arguments_of(node)
    if given.get("training") is False:
        return ()  # a batch norm by its statistics, which it would write in training mode
    names = [a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return tuple(value for name in names for value in _nodes_of(given.get(name)))


def memory_of(value: Node) -> set[Node]:
    """The values whose memory a value may be: such as what a view was taken of."""
    found: set[Node] = set()
    seen: set[Node] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        of = _aliased_by(node)
        waiting += of
        if not of:
            found.add(node)
    return found


def _aliased_by(node: Node) -> list[Node]:
    if node.op != "call_function":
        return []
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return [given for given in node.all_input_nodes if _holds_tensors(given)]
    if any(part.alias_info is not None for part in schema.returns):
        given = arguments_of(node)
        names = [argument.name for argument in schema.arguments if argument.alias_info is not None]
        return [value for name in names for value in _nodes_of(given.get(name))]
    return _nodes_of(node.args[:1]) if operator_of(node) in _MAY_RETURN_THEIR_INPUT else []


def _nodes_of(value: Any) -> list[Node]:
    if isinstance(value, Node):
        return [value]
    return [node for part in value for node in _nodes_of(part)] if isinstance(value, (list, tuple)) else []


def _holds_tensors(node: Node) -> bool:
    return node.op != "get_attr" and not isinstance(node.meta.get("val"), (int, float, bool, torch.SymInt))


def _inner_graphs_only_read(node: Node) -> bool:
    """Whether an operator without a schema runs graphs, all of them known, that write into nothing."""
    owner = node.graph.owning_module
    names = [str(given.target) for given in node.all_input_nodes if given.op == "get_attr"]
    graphs = [getattr(owner, name, None) for name in names]
    return bool(graphs) and all(
        isinstance(part, GraphModule) and not any(map(writes, part.graph.nodes)) for part in graphs
    )


def shape_of(value: Node) -> tuple[int, ...]:
    """The shape that a value has with the example."""
    return sizes_of(value.meta["val"])


def sizes_of(tensor: Any) -> tuple[int, ...]:
    """The sizes of a traced tensor with the example; -1 for one that depends on values, as under a mask."""
    # Asking a symbol for its number as such would bind the program to it.
    return tuple(_size_of(size) for size in tensor.shape)


def _size_of(size: Any) -> int:
    if not isinstance(size, torch.SymInt):
        return int(size)
    return -1 if size.node.hint is None else int(size.node.hint)


def calls_around(node: Node) -> tuple[tuple[str, str], ...]:
    """The calls of modules that a node stands in, outermost first: (call, qualified name of the module).

    Two calls of one module have different first parts.
    """
    stack = node.meta.get("nn_module_stack") or {}
    return tuple((call, _name_of(where[0])) for call, where in stack.items())


def _name_of(path: str) -> str:
    name = path.partition("@")[0]
    root = _EXPORTED_ROOT.match(name)
    return name if root is None else name[root.end() :]
