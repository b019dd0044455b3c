"""Finds where modules with hooks lie in a trace, those that run no operator included.

A hook sees what goes in and out of its module, and may change it. A map may not be carried across, and a
trace names the modules that its operators stand in. One such as `nn.Identity` stands nowhere: it is given an
operator that hands on what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from normwright.network.calling import Call
from normwright.network.flow import Flow, calls_around
from normwright.network.trace import UntraceableError, trace


def trace_with_hooked(network: nn.Module, call: Call, hooked: Iterable[str]) -> tuple[Flow, tuple[str, ...]]:
    """A flow in which every module that has hooks and is called has operators, and those that have none.

    Args:
        network: without its hooks.
        call: its arguments.
        hooked: names of the modules that had hooks.
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
