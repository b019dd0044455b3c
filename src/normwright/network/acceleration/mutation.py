"""Whether a value of a traced block may change, in place, between two points of it.

Everything is taken to alias and to change whatever it is given, except what is known not to.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from normwright.network.acceleration.drop_in import DROP_INS
from normwright.network.acceleration.unpacked import unpacked
from normwright.network.frozen_class import unfrozen_class

# Modules that return fresh memory and change nothing but their own buffers, when not in place.
_FRESH_MODULES = frozenset(
    {
        *DROP_INS,
        *DROP_INS.values(),
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear, nn.Embedding),
        *(nn.ReLU, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.Hardswish, nn.Softmax),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    }
)
_READING_MODULES = frozenset({nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.Upsample})
_FRESH_FUNCTIONS = frozenset(
    {
        *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.matmul),
        *(torch.add, torch.sub, torch.mul, torch.cat, torch.matmul, torch.relu, torch.sigmoid, torch.tanh),
        *(nn.functional.relu, nn.functional.silu, nn.functional.gelu, nn.functional.leaky_relu),
    }
)
_IN_PLACE_OPERATORS = frozenset(
    getattr(operator, name)
    for name in dir(operator)
    if name.startswith("i") and name[1:] in {*dir(operator), "and", "or", "concat"} and name != "is_"
) | {operator.setitem, operator.delitem}
# The root of all that exists before the block runs: its arguments, parameters, buffers may share memory.
_OUTSIDE = object()


class Mutations:
    """The changes in place of one traced block.

    Args:
        block: the traced one, to look its modules up in.
    """

    def __init__(self, block: nn.Module) -> None:
        self._block = block
        self._roots: dict[Node, frozenset[Any]] = {}
        #: Paths of the modules whose class an answer relied on.
        self.trusted: set[str] = set()

    def may_change(self, value: Node, nodes: Iterable[Node]) -> bool:
        """Whether running `nodes` may change the memory of `value`."""
        return any(not self.only_reads(node) and self._share(value, node.all_input_nodes) for node in nodes)

    def _share(self, value: Node, others: Iterable[Node]) -> bool:
        roots = self._roots_of(value)
        return any(roots & self._roots_of(other) for other in others)

    def _roots_of(self, node: Node) -> frozenset[Any]:
        if node not in self._roots:
            found: set[Any] = set()
            seen: set[Node] = set()
            waiting = [node]
            while waiting:  # in a loop: a forward may be longer than Python's stack
                part = waiting.pop()
                if part not in seen:
                    seen.add(part)
                    roots, inputs = self._rooted_at(part)
                    found |= roots
                    waiting += inputs
            self._roots[node] = frozenset(found)
        return self._roots[node]

    def _rooted_at(self, node: Node) -> tuple[set[Any], Iterable[Node]]:
        """The roots of a value that lie with its own node, and the inputs whose roots it has besides."""
        inputs = node.all_input_nodes
        if node.op in ("placeholder", "get_attr"):
            return {_OUTSIDE}, ()
        if node.op == "call_module":
            module = self._block.get_submodule(str(node.target))
            if not self._known(str(node.target), module, _FRESH_MODULES | _READING_MODULES):
                return {_OUTSIDE}, inputs  # it may return what it kept from elsewhere
            return ({node}, ()) if self._is_fresh(module) else (set(), inputs)
        if _writes(node):
            return set(), inputs[:1] if _is_torch(node) else inputs
        if node.op == "call_function" and node.target in _FRESH_FUNCTIONS:
            return {node}, ()
        return set(), inputs

    def only_reads(self, node: Node) -> bool:
        """Whether a node writes to none of its arguments."""
        if node.op == "call_module":
            module = self._block.get_submodule(str(node.target))
            known = self._known(str(node.target), module, _FRESH_MODULES | _READING_MODULES)
            return known and not any(getattr(part, "inplace", False) for part in module.modules())
        return not _writes(node)

    def _known(self, path: str, module: nn.Module, kinds: frozenset[type[nn.Module]]) -> bool:
        """Whether a module, or all of a Sequential, is of these kinds, with nothing added to it."""
        if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
            return False
        if type(module) is nn.Sequential:
            parts = [(f"{path}.{name}", part) for name, part in module.named_children()]
            known = all(self._known(name, part, kinds) for name, part in parts)
        else:
            known = unfrozen_class(type(module)) in kinds
        if known:
            self.trusted.add(path)
        return known

    def _is_fresh(self, module: nn.Module) -> bool:
        """Whether a known module returns memory of its own."""
        if type(module) is nn.Sequential:
            return any(self._is_fresh(part) for part in module.children())
        return unfrozen_class(type(module)) in _FRESH_MODULES and not getattr(module, "inplace", False)


def _writes(node: Node) -> bool:
    """Whether a function or method may write to its arguments, by PyTorch's rules of naming."""
    if node.op == "call_method":
        return str(node.target).rstrip("_") != node.target or "out" in node.kwargs
    if node.op != "call_function":
        return False
    function: Any = node.target
    if function is unpacked:
        return False
    if function in _IN_PLACE_OPERATORS:
        return True
    name = getattr(function, "__name__", "")
    # A True among the positional arguments may be `inplace`.
    flagged = node.kwargs.get("inplace") or "out" in node.kwargs or any(a is True for a in node.args)
    return (
        not _is_torch(node) or name.endswith("_") or name in ("batch_norm", "instance_norm") or bool(flagged)
    )


def _is_torch(node: Node) -> bool:
    """Whether a function or method is PyTorch's or Python's."""
    if node.op == "call_method":
        return True
    module = getattr(node.target, "__module__", None) or "torch"  # torch's builtin functions have none
    return module.split(".")[0] in ("torch", "_operator", "operator", "math", "builtins")
