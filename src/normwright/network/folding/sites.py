"""Finds in a flow what normalises by fixed statistics: maps of the channels, wherever they are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.fx import Node

from normwright.errors import NormwrightError
from normwright.network.flow import Flow, arguments_of, calls_around, operator_of, shape_of, written_by
from normwright.network.folding.affine import Affine, NotAffineError, affine_of, check_fixed
from normwright.network.folding.block_affine import ChannelMap
from normwright.network.folding.whitening import ends_of, whitening_map
from normwright.network.walk import SPLIT, WHITENING, is_normaliser
from normwright.nn import DynamicTanh

_BATCH_NORMS = frozenset(
    {
        "aten.batch_norm",
        "aten.native_batch_norm",
        "aten.cudnn_batch_norm",
        "aten._native_batch_norm_legit",
        "aten._native_batch_norm_legit_no_training",
        "aten._batch_norm_no_update",
        "normwright.channel_affine",
    }
)
_AFFINE = frozenset({"aten.mul", "aten.add", "aten.sub", "aten.div"})
_CASTS = frozenset({"aten.to", "aten._to_copy"})


@dataclass(frozen=True, eq=False)
class Site:
    """One call of a normaliser, as an affine map of the channels.

    Args:
        name: of the module, or of the module in whose forward the function is called.
        kind: the module's class, or the function.
        module: qualified name of the module whose whole call this is, or None for a function's call.
        nodes: the operators that make it up.
        source: what is normalised.
        result: what comes out.
        axis: of the channels, in both.
        affine: of the channels.
        place: which of the calls of `batch_norm` in the module's forward this is, from 0;
            of those of `instance_norm` from -1, downwards.
    """

    name: str
    kind: str
    module: str | None
    nodes: tuple[Node, ...]
    source: Node
    result: Node
    axis: int
    affine: ChannelMap
    place: int = 0


@dataclass(frozen=True)
class Unfoldable:
    """One call of a normaliser that is no fixed affine map, and why."""

    name: str
    kind: str
    module: str | None
    reason: str
    place: int = 0


def named_block(node: Node) -> str:
    """What a part of a forward that is traced as a graph of its own is, for a reader."""
    switched = "grad_enabled" in str(node.target)
    return "gradients are switched around it, as by torch.no_grad()" if switched else str(node.target)


def is_batch_norm_operator(node: Node) -> bool:
    """Whether a node is an operator that normalises by channel."""
    return operator_of(node) in _BATCH_NORMS or operator_of(node) == "aten.instance_norm"


def find_sites(flow: Flow, network: nn.Module | None) -> list[Site | Unfoldable]:
    """Every call of a batch norm, frozen batch norm or `batch_norm` function, in the order of the flow.

    A module without submodules is a normaliser if all that it does is such a map and it holds running
    statistics or calls `batch_norm`, whatever its class is called. Without a network the operator is, and
    what stands for a module that holds running statistics and is such a map: a frozen batch norm.
    """
    if network is None:
        return _sites_of_program(flow)
    found: list[Site | Unfoldable] = []
    taken: set[Node] = set()
    modules = dict(network.named_modules(remove_duplicate=False))
    met: dict[tuple[str, bool], int] = {}
    groups = _by_call(flow, {name for name, module in modules.items() if not any(module.children())})
    for node in flow.graph.nodes:
        if node in taken or node.op != "call_function":
            continue
        call, name = _innermost(node)
        group = groups.get(call, ())
        module = modules.get(name)
        reason = "" if module is None else _never_folded(module)
        if reason:
            found.append(Unfoldable(name, type(module).__name__, name, reason))
            taken.add(node)
            taken.update(group)
            continue
        if module is not None and group and _may_be_normaliser(module, group):
            try:
                found.append(_site_of_module(flow, group, name, module))
                taken.update(group)
                continue
            except NotAffineError as error:
                if not any(map(is_batch_norm_operator, group)):
                    found.append(Unfoldable(name, type(module).__name__, name, str(error)))
                    taken.update(group)
                    continue
        if is_batch_norm_operator(node):
            of_input = operator_of(node) == "aten.instance_norm"
            count = met[call, of_input] = met.get((call, of_input), 0) + 1
            place = -count if of_input else count - 1
            found.append(_function_site(flow, node, name, module, place))
            taken.add(node)
    return found


def _site_of_module(flow: Flow, nodes: Sequence[Node], name: str, module: nn.Module) -> Site:
    kind = type(module).__name__
    if isinstance(module, WHITENING):
        affine = whitening_map(module)
        return Site(name, kind, name, *ends_of(flow, nodes, name), axis=1, affine=affine)
    return _chain(flow, nodes, name, kind, name)


def _never_folded(module: nn.Module) -> str:
    """Why a module is none that is folded, though it calls the operator that others do, or ""."""
    if isinstance(module, SPLIT) and module.domains > 1:
        return f"it keeps statistics of {module.domains} domains, of which this call uses one"
    if isinstance(module, DynamicTanh):
        return "it takes no moments, and bends what comes in"
    return ""


def _function_site(
    flow: Flow, node: Node, name: str, module: nn.Module | None, place: int
) -> Site | Unfoldable:
    """A call of the function in a forward that does other things too."""
    kind = operator_of(node).partition(".")[2]
    is_whole = module is not None and _is_whole(module)
    kind = type(module).__name__ if is_whole else f"{kind}()"
    try:
        return dataclasses.replace(_chain(flow, _with_items(node), name, kind, None), place=place)
    except NotAffineError as error:
        return Unfoldable(name, kind, name if is_whole else None, str(error), place)


def _is_whole(module: nn.Module) -> bool:
    """Whether all that a module does is to normalise."""
    return not any(module.children()) and (is_normaliser(module) or _holds_statistics(module))


def _with_items(node: Node) -> tuple[Node, ...]:
    """A node and, where it returns several tensors, the first of them."""
    items = [user for user in node.users if getattr(user.target, "__name__", "") == "getitem"]
    first = [item for item in items if item.args[1] == 0]
    return (node, *first[:1])


def _sites_of_program(flow: Flow) -> list[Site | Unfoldable]:
    """The sites of a program, whose modules are known by name alone."""
    found: list[Site | Unfoldable] = []
    taken: set[Node] = set()
    held = set(flow.names.values())
    frozen = {name.rpartition(".")[0] for name in held if name.endswith("running_mean")}
    frozen = {name for name in frozen if f"{name}.running_var".lstrip(".") in held}
    whitening = {name.rpartition(".")[0] for name in held if name.endswith("running_covariance")}
    groups = _by_call(flow, frozen | whitening)
    met: dict[tuple[str, bool], int] = {}
    for node in flow.graph.nodes:
        if node in taken or node.op != "call_function":
            continue
        call, name = _innermost(node)
        group = groups.get(call, ())
        if is_batch_norm_operator(node):
            of_input = operator_of(node) == "aten.instance_norm"
            count = met[call, of_input] = met.get((call, of_input), 0) + 1
            found.append(_function_site(flow, node, name, None, -count if of_input else count - 1))
        elif group and name in whitening:
            reason = "a program does not say by which settings it whitens: fold the network, then export it"
            found.append(Unfoldable(name, _class_of(node), None, reason))
            taken.update(group)
        elif group and not any(map(is_batch_norm_operator, group)):
            kind = _class_of(node)
            try:
                found.append(_chain(flow, group, name, kind, None))
            except NotAffineError as error:
                found.append(Unfoldable(name, kind, None, str(error)))
            taken.update(group)
    return found


def _class_of(node: Node) -> str:
    """The class's name of the module whose call a program's node is part of."""
    *_, (_, kind) = node.meta["nn_module_stack"].values()
    return (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]


def _by_call(flow: Flow, names: Collection[str]) -> dict[str, tuple[Node, ...]]:
    """The operators of each call of the modules of these names."""
    groups: dict[str, list[Node]] = {}
    for node in flow.graph.nodes:
        if node.op == "call_function":
            call, name = _innermost(node)
            if name in names:
                groups.setdefault(call, []).append(node)
    return {call: tuple(nodes) for call, nodes in groups.items()}


def _innermost(node: Node) -> tuple[str, str]:
    around = calls_around(node)
    return around[-1] if around else ("", "")


def _holds_statistics(module: nn.Module) -> bool:
    return all(isinstance(getattr(module, name, None), Tensor) for name in ("running_mean", "running_var"))


def _may_be_normaliser(module: nn.Module, group: Sequence[Node]) -> bool:
    known = isinstance(module, WHITENING) or _holds_statistics(module)
    return known or any(map(is_batch_norm_operator, group))


def _chain(flow: Flow, nodes: Sequence[Node], name: str, kind: str, module: str | None) -> Site:
    """The map that some nodes are, each of the last one's result."""
    for around in (part for node in nodes for part in (node, *node.all_input_nodes)):
        if isinstance(around.target, HigherOrderOperator):
            raise NotAffineError(f"it is called in a graph of its own: {named_block(around)}")
    moving = [node for node in nodes if not flow.is_constant(node)]
    if not moving:
        raise NotAffineError(
            "what it normalises is a constant, such as a weight, and none of the network's input"
        )
    source = value = None
    axis: int | None = None
    maps: list[tuple[int | None, Tensor | float, Tensor | float]] = []
    for node in moving:
        if operator_of(node) not in _BATCH_NORMS and any(not _is_counter(flow, v) for v in written_by(node)):
            raise NotAffineError("its class does more than normalise: it overwrites a tensor")
        if not flow.readers(node) and operator_of(node) not in _BATCH_NORMS:
            continue  # a check
        given, step = _step(flow, node)
        if value is None:
            source = given
        elif given is not value or flow.readers(value) != [node]:
            raise NotAffineError("its class does more than normalise")
        value = node
        if step is not None:
            maps.append(step)
            axis = step[0] if axis is None else axis
            if step[0] is not None and step[0] != axis:
                raise NotAffineError("it scales one axis and shifts another")
    if source is None or value is None or axis is None:
        raise NotAffineError("its class does other than normalise")
    if "val" not in value.meta:
        raise NotAffineError("nothing reads its result")
    if -1 in shape_of(source):
        raise NotAffineError("how many elements it is given depends on their values, as under a mask")
    if source.meta["val"].dtype != value.meta["val"].dtype or shape_of(source) != shape_of(value):
        raise NotAffineError("it changes the dtype or the shape")
    try:
        affine = _composed(maps, shape_of(source)[axis], flow)
    except NormwrightError as error:
        raise NotAffineError(str(error)) from error
    return Site(name, kind, module, tuple(moving), source, value, axis, affine)


def _is_counter(flow: Flow, value: Node) -> bool:
    """Whether a value is the count of batches that a normaliser keeps."""
    return flow.names.get(value, "").rpartition(".")[2] == "num_batches_tracked"


def _composed(
    maps: Sequence[tuple[int | None, Tensor | float, Tensor | float]], channels: int, flow: Flow
) -> Affine:
    affine: Affine | None = None
    for _, scale, shift in maps:
        vectors = [
            torch.as_tensor(part, dtype=torch.float64).expand(channels).contiguous()
            for part in (scale, shift)
        ]
        step = Affine(*vectors)
        affine = step if affine is None else affine.then(step)
    assert affine is not None
    return affine


def _step(flow: Flow, node: Node) -> tuple[Node, tuple[int | None, Any, Any] | None]:
    """What a node maps, and axis, scale and shift; None for the identity."""
    operator = operator_of(node)
    if operator in _BATCH_NORMS or operator == "aten.instance_norm":
        return _batch_norm(flow, node)
    if getattr(node.target, "__name__", "") == "getitem":
        return node.args[0], None  # type: ignore[return-value]
    if operator in _CASTS and isinstance(node.args[0], Node):
        if node.args[0].meta["val"].dtype != node.meta["val"].dtype:
            raise NotAffineError("it changes the dtype")
        return node.args[0], None
    if operator in _AFFINE:
        return _arithmetic(flow, node)
    raise NotAffineError(f"its class does more than normalise: {operator or node.target}")


def _batch_norm(flow: Flow, node: Node) -> tuple[Node, tuple[int, Tensor, Tensor]]:
    given = arguments_of(node)
    x = given.get("input", given.get("x"))
    if given.get("residual") is not None or given.get("activation") is not None:
        raise NotAffineError("it is fused with what follows it: fold before you accelerate")
    mean = given.get("running_mean", given.get("mean"))
    variance = given.get("running_var", given.get("variance"))
    check_fixed(mean, variance, training=given.get("use_input_stats", given.get("training")))
    parts = [mean, variance, given.get("weight"), given.get("bias")]
    if not all(map(flow.is_constant, parts)):
        raise NotAffineError("its statistics or parameters depend on the input")
    eps = given.get("eps", given.get("epsilon"))
    try:
        mean, variance, weight, bias = map(flow.constant, parts)
        affine = affine_of(mean, variance, weight, bias, float(eps))  # type: ignore[arg-type]
    except NormwrightError as error:
        raise NotAffineError(str(error)) from error
    return x, (1, affine.scale, affine.shift)  # type: ignore[return-value]


def _arithmetic(flow: Flow, node: Node) -> tuple[Node, tuple[int | None, Any, Any]]:
    left, right = node.args[:2]
    operator = operator_of(node)
    if node.kwargs.get("alpha", 1) != 1 or node.kwargs.get("rounding_mode") is not None:
        raise NotAffineError("its class does more than normalise")
    value, other = (right, left) if flow.is_constant(left) else (left, right)
    if not isinstance(value, Node) or not flow.is_constant(other):
        raise NotAffineError("its class does more than normalise")
    axis, constant = _along(flow.constant(other), value)
    swapped = value is right
    if operator == "aten.mul":
        return value, (axis, constant, 0.0)
    if operator == "aten.add":
        return value, (axis, 1.0, constant)
    if operator == "aten.sub":
        return value, (axis, -1.0, constant) if swapped else (axis, 1.0, -constant)
    if swapped:
        raise NotAffineError("it divides by its input")
    return value, (axis, 1.0 / constant, 0.0)


def _along(constant: Any, value: Node) -> tuple[int | None, Any]:
    """The one axis along which a constant changes, and the constant along it."""
    if not isinstance(constant, Tensor) or constant.numel() == 1:
        return None, float(constant)
    dimensions = len(shape_of(value))
    axes = [axis for axis, size in enumerate(constant.shape, dimensions - constant.dim()) if size != 1]
    if len(axes) != 1 or axes[0] < 0:
        raise NotAffineError("it scales by more than the channel")
    return axes[0], constant.reshape(-1)
