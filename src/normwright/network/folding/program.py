"""Folds a program of `torch.export`: the same operators, without batch norm."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputSpec,
    TensorArgument,
)
from torch.fx import GraphModule, Node

from normwright.network.calling import Call, call_of
from normwright.network.flow import calls_around, operator_of, shape_of
from normwright.network.folding.affine import Affine
from normwright.network.folding.apply import folded_pair
from normwright.network.folding.decision import LayerChange
from normwright.network.folding.difference import compare
from normwright.network.folding.layers import layer_of
from normwright.network.folding.measure import time_in_turn
from normwright.network.folding.other_sizes import check_other_sizes
from normwright.network.folding.plan import Planner
from normwright.network.folding.report import FoldRecord, FoldReport
from normwright.network.folding.sites import Site, find_sites, is_batch_norm_operator, named_block
from normwright.network.trace import flow_of


def fold_program(
    program: ExportedProgram, example: Any, tolerance: float | None, seconds: float
) -> tuple[Any, FoldReport]:
    """A program that computes the same, and the report. See `fold`."""
    if example is None and program.example_inputs is not None:
        call = Call(*program.example_inputs)
    else:
        call = call_of(example)
    folded = _Editing(program)
    flow = flow_of(folded.program)
    planner = Planner(flow, None, find_sites(flow, None))
    planner.plan()
    for change in planner.changes.values():
        folded.change(change)
    for decision in planner.decisions:
        for site in decision.sites:
            if decision.place and isinstance(site, Site):
                folded.remove(site, keep_map=decision.place == "multiply-add")
    result = folded.finished()
    networks = [program.module(), result.module()]
    before, after = map(_runnable, networks)
    error = compare(before, after, call, tolerance)
    axes = _free_axes(program)
    notes = (check_other_sizes(before, after, call, tolerance, axes),) if any(axes) else ()
    speed = time_in_turn(networks, call, seconds=seconds)[0]
    records = tuple(
        FoldRecord(d.name, d.kind, len(d.sites), d.place, d.into, d.reason) for d in planner.decisions
    ) + tuple(_records_of_inner_graphs(program))
    return result, FoldReport("torch.export", records, error, speed, notes)


def _free_axes(program: ExportedProgram) -> list[list[int]]:
    """The axes of each tensor that a program is given which may have other sizes than the example's."""
    given = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in given]
    tensors = [value for value in values if isinstance(value, Tensor)]
    return [[axis for axis, n in enumerate(x.shape) if type(n) is not int] for x in tensors]


def _runnable(module: nn.Module) -> nn.Module:
    """A program's module that runs in float64 too: without the checks of its tensors' dtypes."""
    module = copy.deepcopy(module)
    assert isinstance(module, GraphModule)
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
    module.recompile()
    return module


def _computed_for(site: Site, source: Node) -> set[Node]:
    """The operators that compute what a normaliser scales and shifts by."""
    found: set[Node] = set()
    waiting = list(site.nodes)
    while waiting:
        for given in waiting.pop().all_input_nodes:
            if given is not source and given.op == "call_function" and given not in found:
                found.add(given)
                waiting.append(given)
    return found


def _records_of_inner_graphs(program: ExportedProgram) -> list[FoldRecord]:
    """The normalisers in graphs of their own, which are not looked into."""
    records = []
    for block in program.graph.nodes:
        if isinstance(block.target, HigherOrderOperator):
            inner = [
                getattr(program.graph_module, str(given.target))
                for given in block.all_input_nodes
                if given.op == "get_attr"
            ]
            for node in (node for graph in inner for node in graph.graph.nodes):
                if is_batch_norm_operator(node):
                    name = (calls_around(node) or [("", "")])[-1][1]
                    reason = (
                        f"it is called in a graph of its own ({named_block(block)}): "
                        "program.run_decompositions({}) takes that apart"
                    )
                    kind = f"{operator_of(node).partition('.')[2]}()"
                    records.append(FoldRecord(name, kind, 1, "", (), reason))
    return records


class _Editing:
    """A copy of a program in the making.

    Args:
        program: stays as it is.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._original = program
        self.state = dict(program.state_dict)
        self.constants = dict(program.constants)
        self.specs = list(program.graph_signature.input_specs)
        # By the name of what was removed: the name of what stands for it.
        self._stand_ins: dict[str, str] = {}
        # By the result of a normaliser that was removed: what now stands for it.
        self._handed_on: dict[Node, Node] = {}
        graph = copy.deepcopy(program.graph)
        for node, old in zip(graph.nodes, program.graph.nodes, strict=True):
            node.name = old.name  # a copy gives new ones to "input" and the like
        self.module = GraphModule(program.graph_module, graph)
        self.program = self._built()

    def _built(self) -> ExportedProgram:
        old = self._original
        return ExportedProgram(
            root=self.module,
            graph=self.module.graph,
            graph_signature=ExportGraphSignature(self.specs, self._output_specs()),
            state_dict=self.state,
            range_constraints=dict(old.range_constraints),
            module_call_graph=self._module_call_graph(),
            example_inputs=old.example_inputs,
            constants=self.constants,
            verifiers=list(old.verifiers),
        )

    def _output_specs(self) -> list[OutputSpec]:
        """The program's own, of what is returned in the place of a removed result."""
        old = self._original.graph_signature.output_specs
        return [dataclasses.replace(spec, arg=self._standing_for(spec.arg)) for spec in old]

    def _module_call_graph(self) -> list[Any]:
        """The program's own, likewise."""
        entries = []
        for entry in self._original.module_call_graph:
            entry = copy.copy(entry)
            if entry.signature is not None:
                entry.signature = copy.copy(entry.signature)
                for which in ("inputs", "outputs"):
                    given = [self._standing_for(part) for part in getattr(entry.signature, which)]
                    setattr(entry.signature, which, given)
            entries.append(entry)
        return entries

    def _standing_for(self, argument: Any) -> Any:
        name = getattr(argument, "name", None)
        if name not in self._stand_ins:
            return argument
        while name in self._stand_ins:
            name = self._stand_ins[name]
        return dataclasses.replace(argument, name=name)

    @property
    def graph(self) -> Any:
        """The graph that is edited."""
        return self.program.graph

    def change(self, change: LayerChange) -> None:
        """Gives a layer the weight and bias that it takes in."""
        weight = self._named(change.weight)
        bias = None if change.bias is None else self._named(change.bias)
        calls = [
            layer
            for layer in (layer_of(node) for node in self.graph.nodes if node.op == "call_function")
            if layer is not None and layer.weight is weight
        ]
        made = None
        if bias is None:
            change.bias = self._free_name(f"{change.layer}.bias".lstrip("."))
        old_bias = None if bias is None else self._value(change.bias)  # type: ignore[arg-type]
        new_weight, new_bias = folded_pair(self._value(change.weight), old_bias, change)
        self._store(change.weight, new_weight)
        if bias is not None and new_bias is not None:
            self._store(change.bias, new_bias)  # type: ignore[arg-type]
        elif new_bias is not None and bool(new_bias.any()):
            trained = self._value(change.weight).requires_grad
            made = self.parameter(change.bias, new_bias, trained=trained)  # type: ignore[arg-type]
        for layer in calls:
            if made is not None:
                x, weight_node, *others = layer.node.args  # the bias may be left away
                layer.node.args = (x, weight_node, made, *others[1:])

    def remove(self, site: Site, *, keep_map: bool) -> None:
        """Takes a normaliser out, or puts its map in its place."""
        source = site.source
        while source in self._handed_on:
            source = self._handed_on[source]
        value = self._mapped(site, source) if keep_map else source
        site.result.replace_all_uses_with(value)
        self._stand_ins[site.result.name] = value.name
        self._handed_on[site.result] = value
        made_of = _computed_for(site, source) | set(site.nodes)
        for node in reversed(list(self.graph.nodes)):
            if node in made_of and not node.users:
                self.graph.erase_node(node)

    def _mapped(self, site: Site, source: Node) -> Node:
        aten = torch.ops.aten
        assert isinstance(site.affine, Affine)  # whitening is found by its module
        like = site.source.meta["val"]
        shape = [-1, *[1] * (len(shape_of(site.source)) - site.axis - 1)]
        value = source
        for function, part, what in (
            (aten.mul.Tensor, site.affine.scale, "scale"),
            (aten.add.Tensor, site.affine.shift, "shift"),
        ):
            name = self._free_name(f"{site.name}.{what}".lstrip("."))
            vector = self.parameter(name, part.to(like.device, like.dtype), trained=self._is_trained(site))
            with self.graph.inserting_before(site.nodes[0]):
                along = self._call(aten.view.default, (vector, shape), site)
                value = self._call(function, (value, along), site)
        return value

    def _call(self, function: Any, args: tuple[Any, ...], site: Site) -> Node:
        node: Node = self.graph.call_function(function, args)
        given = [part.meta["val"] if isinstance(part, Node) else part for part in args]
        with site.result.meta["val"].fake_mode:
            value = function(*given)
        node.meta = {**{k: v for k, v in site.result.meta.items() if k != "val"}, "val": value}
        return node

    def _is_trained(self, site: Site) -> bool:
        """Whether what a normaliser scales or shifts by requires a gradient."""
        read = {part.name for node in site.nodes for part in node.all_input_nodes}
        names = [spec.target for spec in self.specs if getattr(spec.arg, "name", None) in read]
        return any(self._value(name).requires_grad for name in names if name is not None)

    def parameter(self, name: str, value: Tensor, *, trained: bool) -> Node:
        """A new parameter of the program."""
        first = next(node for node in self.graph.nodes if node.op == "placeholder")
        with self.graph.inserting_before(first):
            node: Node = self.graph.placeholder(f"p_{name.replace('.', '_')}")
        like = next(n.meta["val"] for n in self.graph.nodes if isinstance(n.meta.get("val"), Tensor))
        with like.fake_mode:
            node.meta["val"] = torch.empty(value.shape, dtype=value.dtype, device=value.device)
        self.specs.insert(0, InputSpec(InputKind.PARAMETER, TensorArgument(node.name), name))
        self.state[name] = nn.Parameter(value, requires_grad=trained)
        return node

    def finished(self) -> ExportedProgram:
        """The program, without the parameters that nothing reads any more."""
        read_before = {node.name for node in self._original.graph.nodes if node.users}
        specs = []
        for spec in self.specs:
            node = next((n for n in self.graph.nodes if n.name == getattr(spec.arg, "name", None)), None)
            dead = node is not None and not node.users and node.name in read_before
            if dead and spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                self.graph.erase_node(node)
                self._holder(str(spec.target)).pop(spec.target, None)
            else:
                specs.append(spec)
        self.specs = specs
        self.module = GraphModule(self.program.graph_module, self.graph)
        return self._built()

    def _named(self, name: str) -> Node:
        placeholder = next(spec.arg.name for spec in self.specs if spec.target == name)
        node: Node = next(node for node in self.graph.nodes if node.name == placeholder)
        return node

    def _value(self, name: str) -> Tensor:
        tensor: Tensor = self._holder(name)[name]
        return tensor

    def _store(self, name: str, value: Tensor) -> None:
        old = self._value(name)
        trained = isinstance(old, nn.Parameter)
        new = nn.Parameter(value, requires_grad=old.requires_grad) if trained else value
        self._holder(name)[name] = new

    def _holder(self, name: str) -> dict[str, Any]:
        """What holds a tensor: a buffer that is not persistent is a constant."""
        return self.state if name in self.state else self.constants

    def _free_name(self, name: str) -> str:
        taken = {spec.target for spec in self.specs}
        while name in taken:
            name += "_"
        return name
