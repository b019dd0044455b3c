"""Folds the normalisers of a network in inference into the layers beside them."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.conv import _ConvNd

from normwright.errors import OptionError
from normwright.network.calling import Call, call_of
from normwright.network.folding.apply import apply
from normwright.network.folding.measure import compare, time_in_turn
from normwright.network.folding.plan import Decision, LayerChange, Planner
from normwright.network.folding.report import FoldRecord, FoldReport
from normwright.network.folding.sites import find_sites
from normwright.network.folding.weight_norm import remove_weight_norm
from normwright.network.trace import Flow, UntraceableError, trace
from normwright.network.walk import find_normalisers

Network = TypeVar("Network", bound=nn.Module)

_SECONDS = 2.0


def fold(network: Network, example: Any, *, tolerance: float | None = None, inplace: bool = False) -> Network:
    """Folds."""
    return fold_with_report(network, example, tolerance=tolerance, inplace=inplace)[0]


def fold_with_report(
    network: Network, example: Any, *, tolerance: float | None = None, inplace: bool = False
) -> tuple[Network, FoldReport]:
    """Folds with report."""
    if not isinstance(network, nn.Module):
        raise OptionError(f"a network must be a torch.nn.Module, but is {type(network).__name__}")
    call = call_of(example)
    unfolded = copy.deepcopy(network)
    flow, planner = plan(unfolded, call)
    folded = copy.deepcopy(network)
    _carry_out(folded, planner)
    error = compare(copy.deepcopy(network), copy.deepcopy(folded), call, tolerance)
    speed = time_in_turn([copy.deepcopy(network), copy.deepcopy(folded)], call, seconds=_SECONDS)[0]
    report = FoldReport(flow.how, _records(network, planner), error, speed, ())
    if inplace:
        _carry_out(network, planner)
        folded = network
    return folded, report


def plan(network: nn.Module, call: Call) -> tuple[Flow, Planner]:
    """The plan for a network, which is changed: it is a copy."""
    hooked = frozenset(name for name, module in network.named_modules() if _has_hooks(module))
    for module in network.modules():
        remove_weight_norm(module)
        # A hook runs when the folded network does. Here it would be handed stand-ins for tensors; what it
        # sees or changes lies on the border of its module, where no map is carried across.
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(module, kind).clear()
        if isinstance(module, (_ConvNd, nn.Linear)) and module.bias is None:
            # Whether its forward reads a bias is seen in the trace.
            module.bias = nn.Parameter(module.weight.new_zeros(_out_channels(module)))
    flow = trace(network, call)
    planner = Planner(flow, network, find_sites(flow, network), hooked)
    planner.plan()
    return flow, planner


def _out_channels(module: nn.Module) -> int:
    return module.out_channels if isinstance(module, _ConvNd) else module.out_features


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def _carry_out(network: nn.Module, planner: Planner) -> None:
    for module in network.modules():
        remove_weight_norm(module)
    apply(network, planner.changes.values(), planner.decisions)


def _records(network: nn.Module, planner: Planner) -> tuple[FoldRecord, ...]:
    records = [FoldRecord(d.name, d.kind, len(d.sites), d.place, d.into, d.reason) for d in planner.decisions]
    return tuple(records)
