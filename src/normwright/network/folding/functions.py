"""Takes calls of `batch_norm` out of the forwards that they stand in.

A forward is Python, and a call in it cannot be taken out of the module. So the module is given a route, as
acceleration gives one: its forward as straight-line code without the calls, taken while it does the same as
the module's own. The statistics of the calls are made those of the identity, so that the module's own forward
computes the same too, where it is ever taken.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional as F

from normwright.network.acceleration.block_trace import trace
from normwright.network.acceleration.blocks import refuse_replacing, route_of
from normwright.network.acceleration.route import own_class, routed_class
from normwright.network.acceleration.stand_in import UntraceableError
from normwright.network.flow import Flow, arguments_of, calls_around, operator_of
from normwright.network.folding.sites import Site, is_batch_norm_operator
from normwright.network.writing import write

_FUNCTIONS = (F.batch_norm, torch.batch_norm)
_IDENTITY = {"running_mean": 0.0, "weight": 1.0, "bias": 0.0}


def why_not_removable(network: nn.Module, flow: Flow, site: Site) -> str:
    """Why a call of the function cannot be taken out of its module's forward, or ""."""
    for name, value in _tensors(site).items():
        if value not in flow.names:
            return f"its {name} is no parameter or buffer"
        if flow.readers(value) != [site.nodes[0]]:
            return f"its {name} is also read elsewhere"
    try:
        block = network.get_submodule(site.name)
        refuse_replacing(block)
        calls = _calls(trace(block, frozenset()).graph.nodes)
    except UntraceableError as error:
        return f"it is called in the forward of {site.name or 'the network'}, which cannot be traced: {error}"
    if site.place < 0 or len(calls) != _calls_met(flow, site):
        return f"the forward of {site.name or 'the network'} calls it in another way"
    return ""


def remove_calls(network: nn.Module, flow: Flow, sites: Iterable[Site]) -> None:
    """Takes calls that were folded out of their forwards, in place."""
    places: dict[str, set[int]] = {}
    for site in sites:
        places.setdefault(site.name, set()).add(site.place)
        _neutralise(network, flow, site)
    for name, gone in places.items():
        block = network.get_submodule(name)
        traced = trace(copy.deepcopy(block), frozenset())
        calls = _calls(traced.graph.nodes)
        for place in gone:
            call = calls[place]
            call.replace_all_uses_with(call.kwargs.get("input", next(iter(call.args), None)))  # type: ignore[arg-type]
            traced.graph.erase_node(call)
        for node in reversed(traced.graph.nodes):
            if node.op == "get_attr" and not node.users:
                traced.graph.erase_node(node)
        route = route_of(traced, tuple(dict.fromkeys(traced.conditions)))
        kind = routed_class(own_class(type(block)), (route,))
        object.__setattr__(block, "__class__", kind)


def _calls_met(flow: Flow, site: Site) -> int:
    """How many calls of `batch_norm` were met in the forward in which one stands."""
    around = calls_around(site.nodes[0])
    return sum(
        is_batch_norm_operator(node)
        and operator_of(node) != "aten.instance_norm"
        and calls_around(node)[-1:] == around[-1:]
        for node in flow.graph.nodes
    )


def _calls(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.op == "call_function" and node.target in _FUNCTIONS]


def _tensors(site: Site) -> dict[str, Any]:
    given = arguments_of(site.nodes[0])
    names = ("running_mean", "running_var", "weight", "bias")
    return {name: given[name] for name in names if given.get(name) is not None}


def _neutralise(network: nn.Module, flow: Flow, site: Site) -> None:
    """Makes a call's statistics, weight and bias those of the identity: a variance of 1 - eps."""
    eps = arguments_of(site.nodes[0])["eps"]
    for what, value in _tensors(site).items():
        owner, _, name = flow.names[value].rpartition(".")
        tensor: Tensor = getattr(network.get_submodule(owner), name)
        write(tensor, _IDENTITY.get(what, 1.0 - eps))
