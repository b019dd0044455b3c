"""Finds where modules with hooks lie in a trace, those that run no operator included.

A hook sees what goes in and out of its module, and may change it. A map may not be carried across, and a
trace names the modules that its operators stand in. One such as `nn.Identity` stands nowhere: it is given an
operator that hands on what it is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from normwright.network.calling import Call
from normwright.network.copying import copied
from normwright.network.flow import Flow, calls_around
from normwright.network.trace import UntraceableError, trace

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def trace_without_hooks(
    network: nn.Module, call: Call, hooked: Iterable[str]
) -> tuple[Flow, tuple[str, ...], tuple[str, ...]]:
    """`trace_with_hooked` of a network whose hooks are taken off for good, but for those that it needs.

    A hook runs when the folded network does. In a trace it would be handed stand-ins for tensors, which may
    stay behind in what it keeps; what it sees or changes lies on the border of its module, where no map is
    carried across. But a forward may need what hooks gather: those of Transformers hand on the hidden states.

    Returns:
        The names of the hooks that were needed, after the rest.
    """
    hooks = [
        (getattr(module, kind), dict(getattr(module, kind))) for module in network.modules() for kind in HOOKS
    ]
    for live, _ in hooks:
        live.clear()
    try:
        return *trace_with_hooked(network, call, hooked), ()
    except UntraceableError:
        for live, of_module in hooks:
            live.update(of_module)
        origins = dict.fromkeys(_origin(hook) for live, _ in hooks for hook in live.values())
        needed = [origin for origin in origins if _fails_without(network, call, origin)]
        if not needed:
            raise
        _take_off(network, origins.keys() - needed)
        return *trace_with_hooked(network, call, hooked), tuple(name for name, _ in needed)


def _origin(hook: Any) -> tuple[str, Any]:
    """What hooks that differ in what they hold alone have in common: name, and code or class."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    kind = type(hook)
    return getattr(hook, "__qualname__", kind.__qualname__), getattr(hook, "__code__", kind)


def _fails_without(network: nn.Module, call: Call, origin: tuple[str, Any]) -> bool:
    """Whether a call, of tensors that are real, needs the hooks of an origin."""
    network = copied(network)
    _take_off(network, {origin})
    try:
        with torch.no_grad():
            call.map(torch.clone).of(network)
    except Exception:
        return True
    return False


def _take_off(network: nn.Module, origins: Collection[tuple[str, Any]]) -> None:
    for module in network.modules():
        for kind in HOOKS:
            live = getattr(module, kind)
            for key in [key for key, hook in live.items() if _origin(hook) in origins]:
                del live[key]


def trace_with_hooked(network: nn.Module, call: Call, hooked: Iterable[str]) -> tuple[Flow, tuple[str, ...]]:
    """A flow in which every module that has hooks and is called has operators, and those that have none.

    Args:
        network: with or without its hooks.
        call: its arguments.
        hooked: names of the modules that have or had hooks.
    Raises:
        UntraceableError: no way of tracing serves.
    """
    flow = trace(network, call)
    unseen = _without_operators(flow, hooked)
    if not unseen:
        return flow, ()
    called: set[str] = set()
    handles = [network.get_submodule(name).register_forward_hook(_marking(name, called)) for name in unseen]
    try:
        marked = trace(network, call)
    except UntraceableError:
        return flow, unseen
    finally:
        for handle in handles:
            handle.remove()
    return marked, tuple(name for name in _without_operators(marked, unseen) if name in called)


def _without_operators(flow: Flow, names: Iterable[str]) -> tuple[str, ...]:
    seen = {name for node in flow.graph.nodes for _, name in calls_around(node)}
    return tuple(sorted(name for name in names if name and name not in seen))


def _marking(name: str, called: set[str]) -> Callable[..., Any]:
    def hand_on(_: nn.Module, given: Any, result: Any) -> Any:
        called.add(name)
        for values in (given, result):
            marked = tree_map(lambda x: torch.ops.aten.alias(x) if isinstance(x, Tensor) else x, values)
        return marked

    return hand_on
