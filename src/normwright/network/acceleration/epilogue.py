"""Finds, in the trace of a block, what follows its normalisers and can be computed with them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, Node

import normwright.functional
from normwright.backends.activation import LEAKY_SLOPE
from normwright.network.acceleration import written_out
from normwright.network.acceleration.drop_in import is_fused
from normwright.network.acceleration.fused_call import fused
from normwright.network.acceleration.mutation import Mutations

# Each with the names of the parameters after the input.
_FUNCTIONS: dict[Any, tuple[str, tuple[str, ...]]] = {
    torch.relu: ("relu", ()),
    torch.relu_: ("relu", ()),
    nn.functional.relu: ("relu", ("inplace",)),
    nn.functional.relu_: ("relu", ()),
    nn.functional.leaky_relu: ("leaky_relu", ("negative_slope", "inplace")),
    nn.functional.silu: ("silu", ("inplace",)),
    nn.functional.gelu: ("gelu", ("approximate",)),
    torch.sigmoid: ("sigmoid", ()),
    torch.sigmoid_: ("sigmoid", ()),
    nn.functional.sigmoid: ("sigmoid", ()),
    torch.tanh: ("tanh", ()),
    torch.tanh_: ("tanh", ()),
    nn.functional.tanh: ("tanh", ()),
    **{name: (name.rstrip("_"), ()) for name in ("relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_")},
}
_SETTINGS = {"negative_slope": LEAKY_SLOPE, "approximate": "none"}
_MODULES: dict[type[nn.Module], tuple[str, dict[str, Any]]] = {
    nn.ReLU: ("relu", {}),
    nn.LeakyReLU: ("leaky_relu", {"negative_slope": LEAKY_SLOPE}),
    nn.SiLU: ("silu", {}),
    nn.GELU: ("gelu", {"approximate": "none"}),
    nn.Sigmoid: ("sigmoid", {}),
    nn.Tanh: ("tanh", {}),
}


_WRITTEN_OUT = (written_out.rms_norm, written_out.layer_norm)
# Where a subclass of a normaliser calls the function that its class stands for, or was found to write it out.
_OURS: dict[Any, Any] = {
    getattr(nn.functional, name): getattr(normwright.functional, name)
    for name in ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm")
} | {function: function for function in _WRITTEN_OUT}
_DROPOUTS = frozenset({nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d})
_ADDITIONS = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
_IN_PLACE_ADDITIONS = frozenset({operator.iadd, "add_"})


@dataclass(frozen=True)
class Chain:
    """A normaliser's call in a trace, and the nodes after it that one operator can compute with it.

    Args:
        norm: the call.
        nodes: all of the chain, the call first.
        residual: what is added.
        in_place: it is added with `+=`.
        norm_first: it is added to the normaliser's output.
        activation: by name.
        reason: why the chain ends where it does.
    """

    norm: Node
    nodes: tuple[Node, ...]
    residual: Node | None = None
    in_place: bool = False
    norm_first: bool = True
    activation: str | None = None
    reason: str = ""

    @property
    def fused(self) -> str:
        """What is fused, in words: "residual + relu"."""
        return " + ".join([*["residual"][: self.residual is not None], *filter(None, [self.activation])])


def find_chains(graph: Graph, block: nn.Module, mutations: Mutations) -> list[Chain]:
    """One chain for every call of a drop-in in the trace of a block."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    return [
        _chain(node, block, mutations) for node in calls if is_fused(block.get_submodule(str(node.target)))
    ]


def find_function_chains(graph: Graph, block: nn.Module) -> list[Chain]:
    """One chain for every call of PyTorch's function of a normaliser in the trace of a block."""
    calls = [node for node in graph.nodes if node.op == "call_function" and node.target in _OURS]
    return [_function_chain(node, block) for node in calls]


def _function_chain(norm: Node, block: nn.Module) -> Chain:
    last, nodes = _skip_transparent(norm, block)
    reader = _only_reader(last)
    if norm.target in _WRITTEN_OUT:
        return Chain(norm, (norm,), reason=_why_not(last, block))
    activation = None if reader is None else _activation(reader, block)
    # An activation elsewhere might read what was changed in place since.
    if reader is None or activation is None or [*nodes, reader] != _in_a_row(norm, len(nodes) + 1):
        return Chain(norm, (norm,), reason=_why_not(last, block))
    return Chain(norm, (*nodes, reader), activation=activation)


def _in_a_row(node: Node, length: int) -> list[Node]:
    row = [node]
    while len(row) < length:
        row.append(row[-1].next)
    return row


def fuse(graph: Graph, chain: Chain) -> None:
    """Puts one call in the place of a chain: of `fused_call.fused`, or of ours for PyTorch's function."""
    last = chain.nodes[-1]
    with graph.inserting_before(last):
        if chain.norm.op == "call_function":
            named = dict(chain.norm.kwargs)
            if chain.activation is not None:
                named["activation"] = chain.activation
            call = graph.call_function(_OURS[chain.norm.target], chain.norm.args, named)
        else:
            norm = graph.get_attr(str(chain.norm.target))
            details = (chain.residual, chain.activation, chain.in_place, chain.norm_first)
            call = graph.call_function(fused, (norm, _input(chain.norm), *details))
    last.replace_all_uses_with(call)
    for node in reversed(chain.nodes):
        graph.erase_node(node)


def continues(node: Node, block: nn.Module) -> bool:
    """Whether a value is read once, by an addition or an activation (what passes it on apart)."""
    last, _ = _skip_transparent(node, block)
    reader = _only_reader(last)
    return reader is not None and (
        _operand(reader, last) is not None or _activation(reader, block) is not None
    )


def is_one_activation(graph: Graph, module: nn.Module) -> bool:
    """Whether a module's trace is an activation of its only argument, and nothing else."""
    nodes = list(graph.nodes)
    return (
        [node.op for node in nodes[:1] + nodes[2:]] == ["placeholder", "output"]
        and _activation(nodes[1], module) is not None
        and nodes[1].all_input_nodes == nodes[:1]
        and nodes[2].args == (nodes[1],)
    )


def ends_open(graph: Graph, block: nn.Module, opens: Callable[[nn.Module], bool]) -> Node | None:
    """The call whose result the block returns, alone or with a residual added; what reads it is outside.

    Args:
        opens: whether a module's own forward does this, or the module is a drop-in.
    """
    value = next(node for node in graph.nodes if node.op == "output").args[0]
    while isinstance(value, Node) and len(value.users) == 1:
        if value.op == "call_module":
            module = block.get_submodule(str(value.target))
            if opens(module):
                return value
            if not is_transparent(module) or len(value.args) != 1:
                return None
            value = value.args[0]
        elif _is_addition(value):
            operands = [part for part in value.args if isinstance(part, Node) and _opens(part, block, opens)]
            value = operands[0] if operands else None
        else:
            return None
    return None


def _opens(node: Node, block: nn.Module, opens: Callable[[nn.Module], bool]) -> bool:
    return node.op == "call_module" and opens(block.get_submodule(str(node.target)))


def _chain(norm: Node, block: nn.Module, mutations: Mutations) -> Chain:
    module = block.get_submodule(str(norm.target))
    refusal = _refuse(norm, module)
    if refusal:
        return Chain(norm, (norm,), reason=refusal)
    last, nodes = _skip_transparent(norm, block)
    plain = Chain(norm, (norm,), reason=_why_not(last, block))
    best = plain
    found: dict[str, Any] = {}
    reader = _only_reader(last)
    if reader is not None and (residual := _operand(reader, last)) is not None:
        found = {
            "residual": residual,
            "in_place": reader.target in _IN_PLACE_ADDITIONS,
            "norm_first": reader.args[0] is last,
        }
        last, more = _skip_transparent(reader, block)
        best = Chain(norm, (*nodes, reader), **found)
        nodes = (*nodes, *more)
        reader = _only_reader(last)
    if reader is not None and (activation := _activation(reader, block)) is not None:
        best = Chain(norm, (*nodes, reader), **found, activation=activation)
    if best.fused and (refusal := _moved_reads(best, block, mutations)):
        return Chain(norm, (norm,), reason=refusal)
    return best


def settings_of(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    """Names and values of what a module of a chain must keep for the chain to be what it is."""
    if type(module) in _DROPOUTS:
        return (("p", module.p),) if module.p == 0 else (("training", False),)
    required = {"activation": None} if is_fused(module) else _MODULES.get(type(module), ("", {}))[1]
    return tuple(required.items())


def _refuse(norm: Node, module: nn.Module) -> str:
    if getattr(module, "activation", None) is not None:
        return f"it has the activation {module.activation} already"
    if _hooked(module):
        return "it has hooks, which shall see its own output"
    if not isinstance(_input(norm), Node) or len(norm.args) + len(norm.kwargs) != 1:
        return "it is called with more than its input"
    return ""


def _input(norm: Node) -> Any:
    return norm.args[0] if norm.args else norm.kwargs.get("input")


def is_transparent(module: nn.Module) -> bool:
    """Whether a module returns its very input: an identity, or a dropout that drops nothing."""
    dropout = type(module) in _DROPOUTS and (not module.training or bool(module.p == 0))
    return dropout or type(module) is nn.Identity


def _skip_transparent(node: Node, block: nn.Module) -> tuple[Node, tuple[Node, ...]]:
    """The last of a row of transparent modules after a node, and the row with the node."""
    row = [node]
    while (reader := _only_reader(row[-1])) is not None and reader.op == "call_module":
        module = block.get_submodule(str(reader.target))
        if not is_transparent(module) or _hooked(module) or reader.args != (row[-1],):
            break
        row.append(reader)
    return row[-1], tuple(row)


def _only_reader(node: Node) -> Node | None:
    """The one node that reads a value, once."""
    if len(node.users) != 1:
        return None
    (reader,) = node.users
    return reader if reader.op != "output" else None


def _is_addition(node: Node) -> bool:
    return (
        node.op in ("call_function", "call_method")
        and node.target in _ADDITIONS
        and len(node.args) == 2
        and not node.kwargs
    )


def _operand(addition: Node, value: Node) -> Node | None:
    """What an addition adds to a value, or the value to; None where it is no such addition."""
    if not _is_addition(addition):
        return None
    first, second = addition.args
    if first is value and isinstance(second, Node) and second is not value:
        return second
    # The other way round `+=` changes the residual, which others may read.
    if second is value and isinstance(first, Node) and first is not value:
        return None if addition.target in _IN_PLACE_ADDITIONS else first
    return None


def _activation(node: Node, block: nn.Module) -> str | None:
    if node.op == "call_module":
        module = block.get_submodule(str(node.target))
        name, required = _MODULES.get(type(module), (None, {}))
        same = all(getattr(module, key) == value for key, value in required.items())
        return name if same and not _hooked(module) else None
    if node.op not in ("call_function", "call_method") or node.target not in _FUNCTIONS:
        return None
    name, parameters = _FUNCTIONS[node.target]
    if len(node.args) > 1 + len(parameters):
        return None
    settings = {**dict(zip(parameters, node.args[1:], strict=False)), **node.kwargs}
    if node.args and "input" in settings:
        return None
    defaults = {key: value for key, value in _SETTINGS.items() if key in parameters}
    same = all(settings.get(key, value) == value for key, value in defaults.items())
    known = settings.keys() <= {"input", *parameters}
    return name if same and known else None


def _hooked(module: nn.Module) -> bool:
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or "forward" in module.__dict__


def _moved_reads(chain: Chain, block: nn.Module, mutations: Mutations) -> str:
    """Why a chain cannot be computed where it ends, instead of where its parts stand; "" if it can."""
    nodes = list(chain.norm.graph.nodes)
    start, end = nodes.index(chain.norm), nodes.index(chain.nodes[-1])
    between = [node for node in nodes[start + 1 : end] if node not in chain.nodes]
    if mutations.may_change(_input(chain.norm), between):
        return "its input may be changed in place before the activation or the residual"
    norm = block.get_submodule(str(chain.norm.target))
    for node in between:
        if node.op == "call_module" and norm in block.get_submodule(str(node.target)).modules():
            return "it is called again before the activation or the residual"
    if any(node.op == "get_attr" and str(node.target).startswith(f"{chain.norm.target}.") for node in nodes):
        return "its state is read by the forward of its block"
    # The activation's backward reads the residual, which the addition's does not.
    if chain.residual is not None:
        addition = next(node for node in chain.nodes if chain.residual in node.all_input_nodes)
        after = [node for node in nodes[nodes.index(addition) + 1 :] if node not in chain.nodes]
        if mutations.may_change(chain.residual, after):
            return "the residual may be changed in place afterwards"
    return ""


def _why_not(last: Node, block: nn.Module) -> str:
    """What stands in the place of an activation or a residual."""
    readers = list(last.users)
    if not readers:
        return "nothing reads its output"
    if len(readers) > 1:
        return f"its output is read {len(readers)} times"
    reader = readers[0]
    if reader.op == "output":
        return "its block returns its output"
    if reader.op == "call_module":
        module = block.get_submodule(str(reader.target))
        hooked = ", which has hooks" if type(module) in _MODULES and _hooked(module) else ""
        return f"its output goes to {reader.target} ({type(module).__name__}){hooked}"
    name = reader.target if isinstance(reader.target, str) else getattr(reader.target, "__name__", "?")
    return f"its output goes to {name}"
