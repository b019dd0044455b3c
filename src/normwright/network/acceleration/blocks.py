"""Plans the routes of a network's blocks, from the innermost outwards."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.fx import Node

from normwright.network.acceleration.block_trace import (
    OWN_CASE,
    Case,
    Trace,
    other_cases,
    refuse_hooked,
)
from normwright.network.acceleration.drop_in import (
    drop_in_for,
    is_fused,
    may_call_a_function,
    normalisers_by_name,
)
from normwright.network.acceleration.epilogue import (
    Chain,
    continues,
    ends_open,
    find_chains,
    find_function_chains,
    fuse,
    is_one_activation,
    settings_of,
)
from normwright.network.acceleration.mutation import Mutations
from normwright.network.acceleration.route import Condition, Route, children_of, own_class
from normwright.network.acceleration.stand_in import UntraceableError
from normwright.network.acceleration.traces import Traces
from normwright.network.acceleration.written_out import call_written_out
from normwright.network.copying import copied_already
from normwright.network.frozen_class import unfrozen_class

# The modules to trace through to reach the normaliser whose output a module returns.
Inlined = frozenset[nn.Module]


@dataclass
class BlockPlan:
    """What is to be done with one block.

    Args:
        routes: for its modes; empty where nothing is fused.
        calls: by a normaliser's name, what was fused at each call ("" for nothing) and why not.
        fused_calls: how many calls in its forward have something fused.
        functions: names of the functions of ours that it calls itself, being a normaliser.
        reasons: why it was not traced, by mode ("training", "inference").
    """

    routes: tuple[Route, ...] = ()
    calls: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    fused_calls: int = 0
    functions: tuple[str, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why it was not traced, with the mode where that is one alone; "" if it was."""
        if len(self.reasons) == 2 and len(set(self.reasons.values())) == 1:
            return next(iter(self.reasons.values()))
        return "; ".join(f"in {mode}: {reason}" for mode, reason in self.reasons.items())


def plan_blocks(network: nn.Module) -> dict[str, BlockPlan]:
    """A plan for every module with a forward of its own and a drop-in, or what can be one, inside; and for
    every normaliser without a drop-in, whose forward may call PyTorch's function for it.

    The network is left alone: a copy of its modules is traced, with the same parameters.
    """
    alone = {name for name, part in normalisers_by_name(network).items() if may_call_a_function(part)}
    blocks = [name for name, module in network.named_modules() if name in alone or _is_block(module)]
    try:
        scratch = _copy_sharing_tensors(network)
    except Exception as error:
        reason = f"its modules cannot be copied ({type(error).__name__}: {error})"
        return {name: BlockPlan(reasons={"training": reason, "inference": reason}) for name in blocks}
    for module in scratch.modules():
        kind = drop_in_for(module)
        # An accelerated network is planned anew.
        object.__setattr__(module, "__class__", kind if isinstance(kind, type) else own_class(type(module)))
    names = {module: name for name, module in scratch.named_modules()}
    plans = {name: BlockPlan() for name in blocks}
    traces = Traces()
    for training in (True, False):
        for module in scratch.modules():
            module.training = training
        opens: dict[nn.Module, Inlined] = {
            module: frozenset() for module in scratch.modules() if is_fused(module)
        }
        for name in reversed(blocks):  # those inside before those around them
            block, plan = scratch.get_submodule(name), plans[name]
            traced = _plan(block, opens, names, plan, traces, alone=name in alone)
            for case in other_cases(block, traced) if name in alone else ():
                _plan(block, opens, names, plan, traces, alone=True, case=case)
    return plans


def _plan(
    block: nn.Module,
    opens: dict[nn.Module, Inlined],
    names: dict[nn.Module, str],
    plan: BlockPlan,
    traces: Traces,
    *,
    alone: bool,
    case: Case = OWN_CASE,
) -> Trace | None:
    """Adds to the plan what the block allows in its present mode; and to `opens` whether it ends open.

    Args:
        block: of a copy of the network.
        opens: what ends open, of the blocks inside.
        names: of the copy's modules.
        plan: to be added to.
        traces: those that were made.
        alone: the block is a normaliser, and what it calls itself is looked at.
        case: what it is traced for.
    Returns:
        Its trace, or None where there is none.
    """
    try:
        refuse_replacing(block)
        activations = frozenset(part for part in block.children() if _is_an_activation(part, traces))
        traced = traces.of(block, activations, case)
    except UntraceableError as error:
        if case is OWN_CASE:
            plan.reasons["training" if block.training else "inference"] = str(error)
        return None
    end = ends_open(traced.graph, block, opens.__contains__)
    if end is not None:
        last = block.get_submodule(str(end.target))
        opens[block] = opens[last] | activations | {block}
    traced = _trace_further(block, traced, opens, activations, traces)
    mutations = Mutations(block)
    if alone:
        call_written_out(traced.graph, block)
        chains = fusing = find_function_chains(traced.graph, block)
    else:
        chains = _without_overlap(find_chains(traced.graph, block, mutations))
        fusing = [chain for chain in chains if chain.fused]
    for chain in chains:
        calls_itself = chain.norm.op == "call_function"
        name = names[block if calls_itself else block.get_submodule(str(chain.norm.target))]
        outcome = (chain.fused, chain.reason)
        if outcome not in plan.calls.setdefault(name, []):
            plan.calls[name].append(outcome)
    if not fusing:
        return traced
    conditions = _conditions(block, traced, fusing, mutations)
    functions = [chain.norm.target.__name__ for chain in fusing if chain.norm.op == "call_function"]  # type: ignore[union-attr]
    plan.functions = tuple(dict.fromkeys((*plan.functions, *functions)))
    places = {node: place for place, node in enumerate(traced.graph.nodes)}
    # From the end: what a chain adds may be what another one before it ends with.
    for chain in sorted(fusing, key=lambda chain: places[chain.nodes[-1]], reverse=True):
        fuse(traced.graph, chain)
    route = route_of(traced, conditions)
    if route not in plan.routes:
        plan.routes = (*plan.routes, route)
        plan.fused_calls = max(plan.fused_calls, sum(bool(chain.fused) for chain in fusing))
    return traced


def _is_block(module: nn.Module) -> bool:
    """Whether a module has a forward of its own, and a drop-in or what can be one inside."""
    if isinstance(module, torch.jit.ScriptModule) or isinstance(drop_in_for(module), type):
        return False
    if type(module).forward is nn.Module.forward:
        return False
    return any(isinstance(drop_in_for(part), type) for part in module.modules())


def refuse_replacing(block: nn.Module) -> None:
    """Raises where a block's forward may not be replaced."""
    kind = type(block)
    if "forward" in block.__dict__:
        raise UntraceableError("its forward was replaced on this one module")
    for name in ("__reduce__", "__reduce_ex__", "__deepcopy__", "__copy__"):
        if getattr(kind, name, None) is not getattr(object, name, None):
            raise UntraceableError(f"{kind.__name__} is copied or pickled in a way of its own")
    if kind.__module__.startswith("torch.") and kind is not nn.Sequential:
        raise UntraceableError(
            f"{kind.__name__} of torch reads the weights of its normalisers, and does not call them always"
        )


def _is_an_activation(module: nn.Module, traces: Traces) -> bool:
    """Whether a module's forward is an activation and nothing else, as Transformers' SiLUActivation's."""
    held = (module._modules, module._parameters, module._buffers)
    if type(module).__module__.startswith("torch.") or any(held):
        return False
    try:
        refuse_hooked(module)
        return is_one_activation(traces.of(module, frozenset()).graph, module)
    except UntraceableError:
        return False


def _trace_further(
    block: nn.Module,
    traced: Trace,
    opens: dict[nn.Module, Inlined],
    activations: Inlined,
    traces: Traces,
) -> Trace:
    """The trace, through those submodules that end in a normaliser which goes with what follows them."""
    inline: set[nn.Module] = set()
    for node in traced.graph.nodes:
        if node.op != "call_module" or not continues(node, block):
            continue
        module = block.get_submodule(str(node.target))
        if module in opens and _may_inline(opens[module]):
            inline |= opens[module]
    try:
        return traces.of(block, activations | inline) if inline else traced
    except UntraceableError:
        return traced


def _may_inline(modules: Iterable[nn.Module]) -> bool:
    try:
        for module in modules:
            refuse_hooked(module)
    except UntraceableError:
        return False
    return True


def _without_overlap(chains: list[Chain]) -> list[Chain]:
    """Where two normalisers are added to each other, the first keeps the sum and reads the second."""
    taken: set[Node] = set()
    kept = []
    for chain in chains:
        if taken.intersection(chain.nodes):
            chain = Chain(chain.norm, (chain.norm,), reason="it is the residual of another one")
        taken.update(chain.nodes)
        kept.append(chain)
    return kept


def _conditions(
    block: nn.Module, traced: Trace, fusing: list[Chain], mutations: Mutations
) -> tuple[Condition, ...]:
    """Those of the trace; and what was folded, or relied upon, must be what it was."""
    conditions = list(traced.conditions)
    for chain in fusing:
        for node in chain.nodes:
            if node.op == "call_module":
                conditions.append(_as_it_is(block, str(node.target), bypassed=True))
    conditions += [_as_it_is(block, path, bypassed=False) for path in sorted(mutations.trusted)]
    return tuple(dict.fromkeys(conditions))


def _as_it_is(block: nn.Module, path: str, *, bypassed: bool) -> Condition:
    module = block.get_submodule(path)
    attributes = settings_of(module)
    if not bypassed and hasattr(module, "inplace"):
        attributes = (("inplace", module.inplace),)
    children = children_of(module) if type(module) is nn.Sequential else None
    kind = unfrozen_class(type(module))
    return Condition(tuple(path.split(".")), kind, bypassed, children, attributes)


def route_of(traced: Trace, conditions: tuple[Condition, ...]) -> Route:
    """A trace's code as a route."""
    code = traced.graph.python_code("self")
    implied = {"inf", "nan", "NoneType"}
    names = tuple(
        (name, ("module", value.__name__) if isinstance(value, type(torch)) else value)
        for name, value in sorted(code.globals.items())
        if name not in implied
    )
    return Route(traced.parameters, traced.defaults, conditions, code.src, names)


def _copy_sharing_tensors(network: nn.Module) -> nn.Module:
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, copied_already(network) | {id(tensor): tensor for tensor in tensors})
