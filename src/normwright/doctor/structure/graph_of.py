"""Makes the compact graph of a network out of the flow of one call."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Node

from normwright.doctor.structure.graph import Edge, Graph, Operation
from normwright.doctor.structure.layer_kinds import kinds_of
from normwright.doctor.structure.layout import axis_after, is_copied, layout_in, shape_in, value_of
from normwright.doctor.structure.operators import CHECKS, PASSES, function_of, kind_of
from normwright.doctor.structure.where import where_called, where_defined
from normwright.doctor.treatments.reorder import is_sequence
from normwright.network.acceleration.drop_in import normalisers_by_name
from normwright.network.flow import (
    Flow,
    arguments_of,
    calls_around,
    memory_of,
    operator_of,
    written_by,
)


class _Origin(NamedTuple):
    """Which operation a value came from, and what it went through since."""

    place: int
    passed: tuple[str, ...] = ()
    copied: bool = False
    axis: int | None = None


def graph_of(network: nn.Module, flow: Flow) -> Graph:
    """The operations of a flow, one for each layer's call and one for each function's.

    Args:
        network: whose call the flow is of.
        flow: as `trace` gives it.
    """
    return _Builder(network, flow).build()


class _Builder:
    def __init__(self, network: nn.Module, flow: Flow) -> None:
        self._flow = flow
        self._layers = kinds_of(network)
        self._with_normalisers = {module for module in self._layers if _holds_normalisers(module)}
        self._modules = dict(network.named_modules(remove_duplicate=False))
        self._names = {module: name for name, module in network.named_modules()}
        first = {id(parameter): name for name, parameter in network.named_parameters()}
        aliases = network.named_parameters(remove_duplicate=False)
        self._parameters = {name: first[id(parameter)] for name, parameter in aliases}
        self._operations: list[Operation] = []
        self._edges: dict[Edge, None] = {}
        self._origins: dict[Node, tuple[_Origin, ...]] = {}
        self._calls: dict[str, int] = {}  # of a layer's call: its operation
        self._written: dict[Node, int] = {}  # of a memory: the operation that wrote into it last
        self._kept: dict[Node, float] = {}  # of a memory that holds noise: the share of ones
        self._counts: Counter[tuple[str, str]] = Counter()  # of a module's call and a function

    def build(self) -> Graph:
        for node in self._flow.graph.nodes:
            self._origins[node] = self._read(node)
        return Graph(tuple(self._operations), tuple(self._edges), self._flow.how, self._flow.note)

    def _read(self, node: Node) -> tuple[_Origin, ...]:
        """Where a node's value comes from; makes its operation, if it is a part of one."""
        if node.op == "placeholder":
            if node in self._flow.tensors or not isinstance(node.meta.get("val"), Tensor):
                return ()
            return self._add(node, Operation(node.name, "input", "input", True, ""))
        if node.op == "output":
            return self._add(node, Operation("output", "output", "output", True, ""))
        if node.op != "call_function" or isinstance(node.meta.get("val"), (int, float, bool, torch.SymInt)):
            return ()
        layer = self._layer_of(node)
        if layer is not None:
            return self._of_layer(node, *layer)
        if self._flow.is_constant(node):
            return ()
        function = function_of(operator_of(node))
        if getattr(node.target, "__name__", "") == "getitem":
            return self._origins.get(node.args[0], ())  # type: ignore[arg-type]
        if function in CHECKS:
            return ()
        if function in PASSES:
            return self._passed(node, function)
        return self._of_function(node, function or getattr(node.target, "__name__", "function"))

    def _layer_of(self, node: Node) -> tuple[str, nn.Module] | None:
        """The call of a layer that a node is a part of."""
        calls = calls_around(node)
        for place, (call, name) in enumerate(calls):
            module = self._modules.get(name)
            if module is None or module not in self._layers:
                continue
            kind = self._layers[module][1]
            if kind == "normaliser" or module not in self._with_normalisers:
                return call, module
            # as a convolution that ends in a norm: only its own operator is the layer
            if place + 1 == len(calls) and kind_of(function_of(operator_of(node))) == kind:
                return call, module
        return None

    def _of_layer(self, node: Node, call: str, module: nn.Module) -> tuple[_Origin, ...]:
        name, kind = self._layers[module]
        if call not in self._calls:
            around = self._around(node, but=module)
            in_sequence = around == name.rpartition(".")[0] and is_sequence(self._modules[around])
            operation = Operation(name, kind, type(module).__name__, False, around, in_sequence)
            if kind == "dropout":
                p: Any = module.p
                operation = dataclasses.replace(operation, probability=float(p) * module.training)
            self._calls[call] = self._new(node, operation)
        return self._join(node, self._calls[call])

    def _of_function(self, node: Node, function: str) -> tuple[_Origin, ...]:
        if not any(map(self._reads, node.all_input_nodes)):
            if function == "bernoulli":
                self._kept.update(dict.fromkeys(memory_of(node), _share_of_ones(node)))
            return ()
        kind = kind_of(function)
        probability = _probability(node) if kind == "dropout" else None
        kept = self._share_kept(node)
        if kind == "multiply" and kept is not None:  # as F.dropout is computed on a CPU
            function, kind, probability = "dropout", "dropout", round(1 - kept, 12)
        if function == "batch_norm" and _is_instance_norm(node):
            function = "instance_norm"
        around = self._around(node)
        calls = calls_around(node)
        counted = (calls[-1][0] if calls else "", function)
        self._counts[counted] += 1
        number = self._counts[counted]
        name = f"{around}: {function}" + (f"#{number}" if number > 1 else "")
        settings = _settings(node) if kind == "normaliser" else ()
        operation = Operation(name, kind, function, True, around, probability=probability, settings=settings)
        return self._add(node, operation)

    def _passed(self, node: Node, function: str) -> tuple[_Origin, ...]:
        given = node.args[0]
        assert isinstance(given, Node)
        copied = is_copied(given, node)
        return tuple(
            _Origin(
                origin.place,
                (*origin.passed, function),
                origin.copied or copied,
                None if origin.axis is None else axis_after(origin.axis, given, node),
            )
            for origin in self._reads(given)
        )

    def _add(self, node: Node, operation: Operation) -> tuple[_Origin, ...]:
        return self._join(node, self._new(node, operation))

    def _new(self, node: Node, operation: Operation) -> int:
        around = [self._modules[name] for _, name in calls_around(node) if name in self._modules]
        where = where_called(node.meta.get("stack_trace")) or where_defined(around)
        self._operations.append(dataclasses.replace(operation, where=where))
        return len(self._operations) - 1

    def _join(self, node: Node, place: int) -> tuple[_Origin, ...]:
        """Makes a node part of an operation: what it reads, and what it gives."""
        operation = self._operations[place]
        changes: dict[str, Any] = {}
        for given in node.all_input_nodes:
            for origin in self._reads(given):
                if origin.place == place:
                    continue
                self._edges[Edge(origin.place, place, *origin[1:], layout_in(given))] = None
                if not operation.input_shape and "input_shape" not in changes:
                    changes.update(input_shape=shape_in(given), input_layout=layout_in(given))
        read = dict.fromkeys((*operation.parameters, *self._parameters_of(node)))
        changes["parameters"] = tuple(read)
        if operation.kind in ("convolution", "linear"):
            changes["bias"] = operation.bias or self._bias_of(node)
        if not operation.shape or any(self._is_outside(user, place) for user in node.users):
            changes.update(shape=shape_in(node) or operation.shape, layout=layout_in(node))
        self._operations[place] = dataclasses.replace(operation, **changes)
        for value in written_by(node):
            for memory in memory_of(value) - set(self._flow.tensors):
                self._written[memory] = place
        return (_Origin(place, axis=self._axis(node, place)),)

    def _axis(self, node: Node, place: int) -> int | None:
        """Along which axis the channels lie in what a convolution or linear layer gives."""
        shape = shape_in(node)
        kind = self._operations[place].kind
        return {"convolution": 1, "linear": len(shape) - 1}.get(kind) if len(shape) > 1 else None

    def _is_outside(self, user: Node, place: int) -> bool:
        layer = self._layer_of(user) if user.op == "call_function" else None
        return layer is None or self._calls.get(layer[0]) != place

    def _reads(self, value: Node) -> tuple[_Origin, ...]:
        """Where a value comes from at this point, after what was written into it."""
        memories = memory_of(value)
        if memories and memories <= self._flow.tensors.keys():
            return ()  # a parameter or a buffer, whatever was written into it: what is kept from call to call
        origins = self._origins.get(value, ())
        made = max((origin.place for origin in origins), default=-1)
        written = max((self._written.get(memory, -1) for memory in memories), default=-1)
        return (_Origin(written),) if written > made else origins

    def _share_kept(self, node: Node) -> float | None:
        """The share of ones in the noise that an operator reads, or None where it reads none."""
        memories = set().union(*map(memory_of, node.all_input_nodes))
        return next((share for memory, share in self._kept.items() if memory in memories), None)

    def _parameters_of(self, node: Node) -> Iterable[str]:
        for given in node.all_input_nodes:
            waiting = [given]
            while waiting:
                value = waiting.pop()
                if value in self._flow.names:
                    name = self._parameters.get(self._flow.names[value])
                    if name is not None:
                        yield name
                elif self._flow.is_constant(value):
                    waiting += value.all_input_nodes

    def _bias_of(self, node: Node) -> str:
        if not operator_of(node):
            return ""
        given = arguments_of(node)
        bias = given.get("self") if operator_of(node) == "aten.addmm" else given.get("bias")
        return self._parameters.get(self._flow.names.get(bias, ""), "") if isinstance(bias, Node) else ""

    def _around(self, node: Node, but: nn.Module | None = None) -> str:
        """The innermost module whose forward makes a call."""
        modules = [self._modules[name] for _, name in calls_around(node) if name in self._modules]
        inside = modules.index(but) if but in modules else len(modules)
        return self._names[modules[inside - 1]] if inside else ""


def _holds_normalisers(module: nn.Module) -> bool:
    return any(child is not module for child in normalisers_by_name(module).values())


def _is_instance_norm(node: Node) -> bool:
    """Whether a batch norm is of one sample whose channels are those of all samples."""
    given = node.args[0]
    if not isinstance(given, Node) or function_of(operator_of(given)) not in ("view", "reshape"):
        return False
    of = given.args[0]
    assert isinstance(of, Node)
    before, shape = shape_in(of), shape_in(given)
    return len(shape) > 2 and len(before) > 2 and shape[:2] == (1, before[0] * before[1]) and before[0] != 1


def _settings(node: Node) -> tuple[tuple[str, Any], ...]:
    given = arguments_of(node).items()
    return (("operator", operator_of(node)), *((name, _plain(value)) for name, value in given))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    if isinstance(value, Node):
        return "tensor" if isinstance(value_of(value), Tensor) else None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _probability(node: Node) -> float:
    given = arguments_of(node)
    training = given.get("train", given.get("training", True))
    return float(given.get("p", given.get("dropout_p", 0.5))) * bool(training)


def _share_of_ones(node: Node) -> float:
    share = arguments_of(node).get("p", 0.5)
    return float(share) if isinstance(share, (int, float)) else 0.5
