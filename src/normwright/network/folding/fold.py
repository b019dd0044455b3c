"""Folds the normalisers of a network in inference into the layers beside them."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn
from torch._ops import HigherOrderOperator
from torch.export import ExportedProgram
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.weight_norm import WeightNorm

from normwright.errors import FoldError, OptionError
from normwright.functional.arguments import is_number
from normwright.network.acceleration.route import own_class
from normwright.network.calling import Call, call_of
from normwright.network.copying import check_holds_numbers, copied
from normwright.network.counting import how_many
from normwright.network.flow import Flow
from normwright.network.folding.apply import apply
from normwright.network.folding.decision import Decision
from normwright.network.folding.difference import compare
from normwright.network.folding.functions import remove_calls, why_not_removable
from normwright.network.folding.hooked import HOOKS, trace_without_hooks
from normwright.network.folding.measure import time_in_turn
from normwright.network.folding.other_sizes import check_other_sizes
from normwright.network.folding.outside import used_from_outside
from normwright.network.folding.plan import Planner
from normwright.network.folding.program import fold_program
from normwright.network.folding.report import FoldDifference, FoldRecord, FoldReport
from normwright.network.folding.sites import Site, find_sites, named_block
from normwright.network.folding.steered import explained
from normwright.network.folding.stored import changed_attributes
from normwright.network.folding.undo import all_or_nothing
from normwright.network.folding.untraced import decisions_without_trace
from normwright.network.folding.weight_norm import remove_weight_norm, weight_normed
from normwright.network.frozen_class import is_frozen
from normwright.network.trace import UntraceableError
from normwright.network.walk import KEEPING, find_normalisers

Network = TypeVar("Network", bound=nn.Module | ExportedProgram)

# How long the speed before and after is measured.
SECONDS = 2.0

_TAKEN_FOR_GRANTED = (
    "Taken for granted: the forward branches on no size beyond those, and nothing but the forward uses the "
    "folded layers (another method that does computes something else now)."
)

_IDENTITY = nn.Identity()


def fold(network: Network, example: Any, *, tolerance: float | None = None, inplace: bool = False) -> Network:
    """Folds the batch norms and whitening of a network in inference into the layers beside them.

        W x + b, then scale·y + shift  =  (scale·W) x + (scale·b + shift)
        scale·x + shift, then W y + b  =  (W·scale) x + (W shift + b)

    A normaliser with fixed statistics (batch norm in eval mode, frozen batch norm, by module or by function)
    is an affine map of the channels. It goes into the convolutions (1-D to 3-D, transposed, grouped) and
    linear layers before it, else into those after it, through whatever it commutes with: reshapes,
    permutations, average pooling, concatenation. What a shift before a zero-padded convolution adds, and
    does not at its border, is one more convolution, of ones. What can go nowhere becomes one multiply-add.
    Weight norm is undone.

    Whitening in eval mode is such a map with a matrix for each group of channels in the place of scale, and
    folds likewise, where the layer's own groups do not keep those channels apart; it commutes with less (no
    maximum, no flattening of space into channels). What can go nowhere becomes one grouped 1×1 convolution.
    Nothing is left of the root that it takes of its covariance. In a program it stays: fold, then export.

    Which value feeds which is read from a trace of one call, with the network's modes as they are: call
    `network.eval()` first. The trace holds for inputs that take the same way through the network's Python
    code. The network keeps its modules and their classes; where a normaliser stood is `nn.Identity`. What
    `accelerate` fused is taken apart: accelerate afterwards. Arithmetic is in float64, and each weight is
    rounded once.

    The folded network is run on the example against the unfolded one and against float64, and refused where
    its error is too large; then on drawn inputs of another batch and other sizes, where the network takes
    them. Hooks run in these calls; in the trace, global ones alone and those that a call fails without. What
    a forward stores in an attribute may change, of which a warning tells; other methods that use the same
    layers are not looked at, and may compute something else.

    Args:
        network: in eval mode, on any device; or a program of `torch.export`, which is never changed.
        example: a tensor, a tuple of positional arguments or a dict of keyword arguments, such as the network
            is used with. For a program None is the example that it was exported with.
        tolerance: the largest error against float64 that is let pass, in the output's unit; None for at most
            4 times the unfolded network's own on the same example, or 4 ulps, or half of the output's digits
            where the network runs in float64 alone, so that its own is unknown. Where that would be as much
            as the output itself (rounding decided which is the largest, as in top-k), it is the largest
            difference of the two networks in float64, None for half of the output's digits. Where the network
            does not run in float64 it must be given, and is the largest difference from the unfolded network.
        inplace: change the network itself; else a copy of it.
    Returns:
        The folded network; `network.fold_with_report` says what was done, why not the rest, the error and
        the speed.
    Raises:
        OptionError: not a network or an example, or there is no tolerance where one is needed.
        DataError: the example gives an empty output, or one that is nowhere finite.
        FoldError: the error is above the tolerance, at the example's sizes or at others, an output is of a
            class that cannot be compared, or a folded weight is beyond its dtype's range.
        Whatever the network raises on the example.
        After each of them the network is as it was.
    References:
        Jacob et al. 2018, arXiv:1712.05877, section 3.2.
    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> fold(network, torch.zeros(1, 3, 8, 8))
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
          (2): ReLU()
        )
    """
    return fold_with_report(network, example, tolerance=tolerance, inplace=inplace)[0]


def fold_with_report(
    network: Network, example: Any, *, tolerance: float | None = None, inplace: bool = False
) -> tuple[Network, FoldReport]:
    """`fold`, with a record of every normaliser, the error and the speed.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.LayerNorm(8)).eval()
        >>> report = fold_with_report(network, torch.zeros(4, 3))[1]
        >>> [(record.name, record.place, record.into) for record in report.normalisers]
        [('1', 'before', ('0',)), ('3', '', ())]
    """
    check_tolerance(tolerance)
    if isinstance(network, ExportedProgram):
        if inplace:
            raise OptionError("a program cannot be folded in place: take the one that is returned")
        return fold_program(network, example, tolerance, SECONDS)
    if not isinstance(network, nn.Module):
        raise OptionError(
            f"a network must be a torch.nn.Module or an ExportedProgram, but is {type(network).__name__}"
        )
    check_holds_numbers(network)
    call = call_of(example)
    plan = _plan(copied(network), call)
    folded = copied(network)
    _carry_out(folded, plan)
    error = speed = None
    notes = list(plan.notes)
    if plan.changes_something:
        both = (copied(network), copied(folded))  # a call may move buffers
        check = functools.partial(_check, call=call, tolerance=tolerance)
        try:
            error, sizes = check(*both)
        except FoldError as wrong:
            raise explained(wrong, network, folded, plan.hooked, check) from wrong
        notes += _warned_of_stored(changed_attributes(network, *both))
        notes += [sizes, _TAKEN_FOR_GRANTED]
        speed = time_in_turn(both, call, seconds=SECONDS)[0]
    how = "" if plan.flow is None else plan.flow.how
    report = FoldReport(how, _records(network, plan), error, speed, tuple(notes))
    _warn_of_training(report)
    if inplace:
        _carry_out(network, plan)
        folded = network
    return folded, report


def check_tolerance(tolerance: float | None) -> None:
    """An error can be held against it."""
    if tolerance is not None and not (is_number(tolerance) and 0 <= tolerance < math.inf):
        raise OptionError(
            f"tolerance= must be a number, 0 or more, in the output's unit, but is {tolerance!r}: leave it "
            "out for 4 times the unfolded network's own error"
        )


def _check(
    unfolded: nn.Module, folded: nn.Module, *, call: Call, tolerance: float | None
) -> tuple[FoldDifference, str]:
    """The difference on the example, and what was checked at other sizes; raises FoldError."""
    return compare(unfolded, folded, call, tolerance), check_other_sizes(unfolded, folded, call, tolerance)


@dataclass(frozen=True)
class _Plan:
    """What is to be done, and of what it was learnt; `flow` is None where nothing could trace.

    `kept` are the modules that keep their weight norm, `hooked` those that have hooks.
    """

    flow: Flow | None
    planner: Planner | None
    decisions: tuple[Decision, ...]
    unnormed: tuple[str, ...]
    notes: tuple[str, ...]
    kept: frozenset[str]
    hooked: frozenset[str]

    @property
    def changes_something(self) -> bool:
        """Whether a normaliser goes, or weight norm does."""
        return bool(self.unnormed) or any(decision.place for decision in self.decisions)


def _plan(network: nn.Module, call: Call) -> _Plan:
    """The plan for a network, of which this is a copy: it is changed."""
    hooked = frozenset(name for name, module in network.named_modules() if _has_hooks(module))
    normed = {name: weight_normed(module) for name, module in network.named_modules()}
    gone = {"parametrizations", *(f"{w}_{part}" for ws in normed.values() for w in ws for part in "gv")}
    normed = {name: weights for name, weights in normed.items() if weights}
    kept = _used(network, call, list(normed), call_too=False, watched=gone.__contains__)
    unnormed = _prepare(network, kept)
    notes = [f"Weight norm of {name} kept: {reason}." for name, reason in kept.items()]
    notes += [f"Weight norm undone: {', '.join(unnormed)}."] if unnormed else []
    for module in network.modules():
        if isinstance(module, (_ConvNd, nn.Linear)) and module.bias is None:
            # Whether its forward reads a bias is seen in the trace.
            module.bias = nn.Parameter(module.weight.new_zeros(_out_channels(module)))
    try:
        flow, unplaced, ran = trace_without_hooks(network, call, hooked)
    except UntraceableError as error:
        notes.append(f"Nothing could be folded, for the network cannot be traced ({error}).")
        return _Plan(
            None,
            None,
            decisions_without_trace(network, hooked),
            unnormed,
            tuple(notes),
            frozenset(kept),
            hooked,
        )
    if flow.note:
        notes.append(flow.note)
    if ran:
        notes.append(f"Traced with the hooks {', '.join(ran)}, given stand-ins: a call needs them.")
    sites = find_sites(flow, network)
    modules = [site.module for site in sites if isinstance(site, Site) and site.module is not None]
    planner = Planner(
        flow,
        network,
        sites,
        hooked,
        lambda site: why_not_removable(network, flow, site),
        unplaced,
        used=_used(network, call, modules, call_too=True, watched=_is_gone_with_a_normaliser),
    )
    planner.plan()
    return _Plan(flow, planner, tuple(planner.decisions), unnormed, tuple(notes), frozenset(kept), hooked)


def _used(network: nn.Module, call: Call, modules: Sequence[str], **how: Any) -> dict[str, str]:
    return used_from_outside(copied(network), call.map(torch.clone), modules, **how) if modules else {}


def _is_gone_with_a_normaliser(attribute: str) -> bool:
    return not hasattr(_IDENTITY, attribute)


def _prepare(network: nn.Module, kept: Collection[str] = ()) -> tuple[str, ...]:
    """Undoes weight norm and acceleration's routes; returns the names of the weights.

    Args:
        network: to be changed.
        kept: the modules whose weight norm stays.
    """
    names = []
    for name, module in network.named_modules():
        object.__setattr__(module, "__class__", own_class(type(module)))
        if name not in kept:
            names += [f"{name}.{weight}".lstrip(".") for weight in remove_weight_norm(module)]
    return tuple(names)


def _out_channels(module: nn.Module) -> int:
    weight = module.weight
    transposed = isinstance(module, _ConvNd) and module.transposed
    return int(weight.shape[1] * module.groups if transposed else weight.shape[0])  # type: ignore


def _has_hooks(module: nn.Module) -> bool:
    own = any(not isinstance(hook, WeightNorm) for hook in module._forward_pre_hooks.values())
    return own or any(getattr(module, kind) for kind in HOOKS if kind != "_forward_pre_hooks")


@torch.inference_mode(False)  # what is made new is no tensor of that mode
def _carry_out(network: nn.Module, plan: _Plan) -> None:
    changes = {} if plan.planner is None else plan.planner.changes
    with all_or_nothing(network):
        _prepare(network, plan.kept)
        apply(network, changes.values(), plan.decisions)
        if plan.flow is not None:
            gone = [site for d in plan.decisions if d.place in ("before", "after") for site in d.sites]
            functions = [site for site in gone if isinstance(site, Site) and site.module is None]
            remove_calls(network, plan.flow, functions)


def _records(network: nn.Module, plan: _Plan) -> tuple[FoldRecord, ...]:
    """One record per normaliser that the network has or the call met, in the network's order."""
    records = [FoldRecord(d.name, d.kind, len(d.sites), d.place, d.into, d.reason) for d in plan.decisions]
    known = {network.get_submodule(record.name) for record in records}
    for name, module in find_normalisers(network).items():
        if module not in known:
            reason = _why_unmet(module, plan.flow)
            records.append(FoldRecord(name, type(module).__name__, 0, "", (), reason))
    order = {name: place for place, (name, _) in enumerate(network.named_modules())}
    return tuple(sorted(records, key=lambda record: order.get(record.name, -1)))


def _why_unmet(module: nn.Module, flow: Flow | None) -> str:
    frozen = is_frozen(module)
    if frozen and any(module.children()):
        return "its class does more than normalise: it holds other modules"
    if frozen or isinstance(module, KEEPING):
        blocks = () if flow is None else flow.graph.nodes
        inner = next((named_block(b) for b in blocks if isinstance(b.target, HigherOrderOperator)), None)
        if inner is not None:
            return f"the call with the example reaches it in a graph of its own ({inner}), or not at all"
        return "the call with the example does not reach it"
    return "its statistics are those of its input, whatever the mode"


def _warned_of_stored(attributes: Sequence[str]) -> list[str]:
    if not attributes:
        return []
    note = f"What the network stores in {', '.join(attributes)} is no longer what the unfolded one stores."
    warnings.warn(
        f"{note} Return it from the forward where it is needed: what is returned stays the same",
        UserWarning,
        stacklevel=4,
    )
    return [note]


def _warn_of_training(report: FoldReport) -> None:
    left = [record.name for record in report.normalisers if "in training mode" in record.reason]
    if left:
        warnings.warn(
            f"{how_many(len(left), 'normaliser')} in training mode could not be folded, such as {left[0]!r}: "
            "call network.eval() first",
            UserWarning,
            stacklevel=3,
        )
