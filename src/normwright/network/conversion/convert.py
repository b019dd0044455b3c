"""Exchanges the normalisers of a network for another kind."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from normwright.errors import ConversionError, ShapeError
from normwright.network.conversion.become import Undo, become, set_values, take_back
from normwright.network.conversion.fast_path import match_fast_path
from normwright.network.conversion.fit import Fitted, fit
from normwright.network.conversion.kinds import BATCH_KINDS, Species, species_of
from normwright.network.conversion.measure import Metric, measure
from normwright.network.conversion.observe import (
    Calls,
    Forward,
    call_with_example,
    calling_with_batch,
    observe,
    repeatable,
)
from normwright.network.conversion.options import Options
from normwright.network.conversion.plan import Plan, Planner, describe
from normwright.network.conversion.report import Conversion, ConversionReport, Gap
from normwright.network.conversion.rules import rule_for
from normwright.network.conversion.select import Names, choose
from normwright.network.copying import check_holds_numbers, copied, first_on_meta
from normwright.network.counting import how_many
from normwright.network.spread import check_parameters_stay
from normwright.network.walk import check_network
from normwright.nn.normalised_lstm import NormalisedLSTM

Network = TypeVar("Network", bound=nn.Module)


def convert(
    network: Network,
    to: str,
    *,
    names: Names | None = None,
    of: Iterable[str] | None = None,
    groups: int | None = None,
    ghost_size: int | None = None,
    example: Any = None,
    calibrate: Iterable[Any] | None = None,
    forward_fn: Forward | None = None,
    metric: Metric | None = None,
    lossy: bool = False,
    inplace: bool = False,
) -> Network:
    """Turns normalisers into another kind, keeping all that the new kind can hold, and remembering the rest.

    Kinds are batch, synchronised, frozen, renormalised, ghost, split (of one domain), group, instance, layer
    (over channels and space) and rms. Weight, bias, eps, momentum, statistics, device, dtype, mode,
    requires_grad, hooks and attributes are kept; an optimiser's parameters stay the same objects where the
    shape stays. What the new kind has no use for is remembered by the module, so that converting back gives
    it again: a network converted there and back is the same in inference to the bit. What would be lost is
    refused (`rules.TABLE` lists it), and so is what no other kind does: whitening, statistics per time step
    or of several domains, masks.

    Batch, synchronised, frozen, renormalised, ghost and split norms are the same in inference, and go over
    exactly. Others are not: with `calibrate`, weight and bias are fitted to what the network computed before,
    layer by layer, by least squares per channel over all batches in float64.

    Layer norm takes its shape (C, *space) from `example` or `calibrate`, weight and bias repeated over space.
    Without them, or where the shape varies, it becomes `GroupNorm(1, C)`: the same moments at any size.

    Args:
        network: of any kind, in any mode, on any device.
        to: the kind to turn them into.
        names: which, by qualified name, of a normaliser or of what holds some, or as a function
            (name, module) -> bool.
        of: which, by kind. Without both, every batch norm (synchronised, frozen, renormalised, ghost and
            split too), and what an earlier call made of one; an instance, group, layer or RMS norm is never
            taken by mistake.
        groups: the most groups of group norm; None for those of before, else 32. There are fewer where a
            group would have less than two channels, or less than 16 elements.
        ghost_size: samples in a virtual batch of ghost norm, the last of which may be smaller; None for those
            of before, else 32.
        example: a tensor, a tuple of positional arguments or a dict of keyword arguments, on which the
            network is run in inference to see the shapes that its normalisers meet.
        calibrate: batches as `recalibrate` takes them: a tensor, (input, target, …) of which the input is
            taken, or a mapping of keyword arguments, of which those that forward does not take are left out;
            tensors go to the network's device. Read once per normaliser, and three times besides; the order
            may differ from time to time.
        forward_fn: forward_fn(network, batch) runs a batch of `calibrate` otherwise.
        metric: metric(output, target) of the report, a mean over the batch; accuracy where the target is
            a class per sample.
        lossy: give up what would be refused, and report it.
        inplace: change the network itself; else a copy of it.
    Returns:
        The network; `convert_with_report` says what was done.
    Raises:
        ConversionError: a normaliser would lose something, does more than its known class, or needs to be
            seen at work; every such one is listed. Or a parameter would be a new one in a network that is
            wrapped (DistributedDataParallel, FSDP) already. Nothing was changed.
        OptionError: an unknown kind or name, nothing to convert, or not a module.
        ShapeError: a moment of the new kind would be taken of one element.
        DataError: no batch, or one that is not finite.
        Whatever the network or the batches raise; the network is left as it was.
    References:
        Wu & He 2018 (group norm), arXiv:1803.08494.
    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> norm = convert(network, "group")[1]
        >>> type(norm), norm.num_groups
        (<class 'torch.nn.modules.normalization.GroupNorm'>, 4)
        >>> type(convert(convert(network, "group"), "batch")[1])
        <class 'torch.nn.modules.batchnorm.BatchNorm2d'>
    """
    return convert_with_report(
        network, to, names=names, of=of, groups=groups, ghost_size=ghost_size, example=example,
        calibrate=calibrate, forward_fn=forward_fn, metric=metric, lossy=lossy, inplace=inplace,
    )[0]  # fmt: skip


@torch.inference_mode(False)  # what is made new is no tensor of that mode
def convert_with_report(
    network: Network,
    to: str,
    *,
    names: Names | None = None,
    of: Iterable[str] | None = None,
    groups: int | None = None,
    ghost_size: int | None = None,
    example: Any = None,
    calibrate: Iterable[Any] | None = None,
    forward_fn: Forward | None = None,
    metric: Metric | None = None,
    lossy: bool = False,
    inplace: bool = False,
) -> tuple[Network, ConversionReport]:
    """`convert`, with a record of every normaliser, and of what it did to the outputs.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> print(convert_with_report(network, "group")[1])
        1 of 1 normaliser converted to group.
        layer  was             became           notes
        1      BatchNorm2d(8)  GroupNorm(4, 8)  statistics, momentum are set aside
    """
    check_network(network)
    if calibrate is not None:
        check_holds_numbers(network)
    chosen = tuple(choose(network, to, names, of))
    _check_known(network, chosen, to)
    options = Options(to, groups, ghost_size, lossy, calibrated=calibrate is not None)
    batches = None if calibrate is None else repeatable(calibrate)
    forward = calling_with_batch(forward_fn)
    seen: dict[str, Calls] | None = None
    before: nn.Module = network
    if example is not None or batches is not None:
        before = copied(network)
        seen = _see(before, chosen, example, batches, forward)
    # With batches the network itself does not run: a copy of it finds the fit.
    tried = network if inplace and batches is None else copied(network)
    held, buffered = list(tried.parameters()), any(True for _ in tried.buffers())
    plans, undone = _convert(tried, chosen, seen, options)
    try:
        check_parameters_stay(tried, held, buffered=buffered)
        fitted: dict[str, Fitted] = {}
        gap = None
        if batches is not None:
            gap, fitted = _calibrate(before, tried, plans, seen or {}, batches, forward, metric)
        elif example is not None and first_on_meta(network) is None:
            gap = _gap_of(*measure(before, tried, [example], call_with_example, None))
    except BaseException:
        take_back(undone)
        raise
    if inplace and tried is not network:
        _convert_alike(network, chosen, seen, options, fitted)
        tried = network
    calibrated = gap is not None and gap.difference_calibrated is not None
    layers = tuple(
        _record(name, plans[name], fitted.get(name), name in (seen or {}), calibrated=calibrated)
        for name in chosen
    )
    return tried, ConversionReport(to, layers, gap)


def _check_known(network: nn.Module, names: tuple[str, ...], to: str) -> None:
    """Every normaliser does what its known class does; asked before a copy, which some cannot be made of."""
    found = {name: _part_of(network, name, to) or species_of(network.get_submodule(name)) for name in names}
    refused: dict[str, Exception | str] = {n: why for n, why in found.items() if isinstance(why, str)}
    if refused:
        raise _refusal(refused, to, losses=False)


def _part_of(network: nn.Module, name: str, to: str) -> str:
    """Of which module a normaliser is a part that computes with its numbers, or ""."""
    owner = _holder(network, name)
    kind = type(owner)
    if owner is network.get_submodule(name):
        return ""
    if isinstance(owner, NormalisedLSTM):
        return f"it is a part of a {kind.__name__}, which takes its numbers and does not call it"
    if kind.__module__.startswith("torch.ao.") and to not in BATCH_KINDS:
        return (
            f"it is a part of a {kind.__name__}, which reads its running statistics: convert the network "
            "before it is prepared for quantisation"
        )
    return ""


def _holder(network: nn.Module, name: str) -> nn.Module:
    """The module that a normaliser stands in; the network itself where it is all of it."""
    return network.get_submodule(name.rpartition(".")[0]) if name else network


def _see(
    network: nn.Module, names: tuple[str, ...], example: Any, batches: Iterable[Any] | None, forward: Forward
) -> dict[str, Calls]:
    """How the chosen normalisers are called."""
    modules = {name: network.get_submodule(name) for name in names}
    seen: dict[str, Calls] = {}
    if example is not None:
        seen = observe(network, modules, [example], call_with_example)
    if batches is not None:
        for name, calls in observe(network, modules, batches, forward).items():
            known = seen.setdefault(name, calls)
            known.shapes |= calls.shapes
            known.count = max(known.count, calls.count)
    return seen


def _convert(
    network: nn.Module, names: tuple[str, ...], seen: dict[str, Calls] | None, options: Options
) -> tuple[dict[str, Plan | str], list[Undo]]:
    """Converts all or none; a text in the place of a plan says why a normaliser is left as it is."""
    plans: dict[str, Plan | str] = {}
    refused: dict[str, Exception | str] = {}
    for name in names:
        module = network.get_submodule(name)
        species = species_of(module)
        assert not isinstance(species, str)
        if _is_already(module, species, options):
            plans[name] = f"it is {options.to} norm already"
        else:
            try:
                asked = dataclasses.replace(options, training=_holder(network, name).training)
                plans[name] = Planner(module, species, (seen or {}).get(name), asked).plan()
            except (ConversionError, ShapeError) as error:
                refused[name] = error
    if refused:
        raise _refusal(refused, options.to, losses=not options.lossy)
    undone: list[Undo] = []
    try:
        for name, plan in plans.items():
            if isinstance(plan, Plan):
                undone.append(become(network.get_submodule(name), plan.source, plan.target))
        undone += match_fast_path(network)
    except BaseException:
        take_back(undone)
        raise
    return plans, undone


def _is_already(module: nn.Module, species: Species, options: Options) -> bool:
    if species.kind != options.to:
        return False
    if species.kind == "ghost":
        return options.ghost_size in (None, module.ghost_size)
    asked = options.groups
    return species.kind != "group" or asked is None or asked == module.num_groups


def _refusal(refused: dict[str, Exception | str], to: str, *, losses: bool) -> Exception:
    """One error for all that may not be converted, of the kind that the first one is.

    Args:
        refused: why, by name.
        to: the kind that they were to become.
        losses: some may be refused for a loss, which lossy=True would allow.
    """
    first = next(iter(refused.values()))
    kind = type(first) if isinstance(first, Exception) else ConversionError
    lines = "\n".join(f"  {name or '(network)'}: {why}" for name, why in refused.items())
    but = " without losing something, or without being seen at work" if losses else ""
    allow = ", or allow what is a loss with lossy=True" if losses else ""
    return kind(
        f"{how_many(len(refused), 'normaliser')} cannot become {to} norm{but}; nothing was changed. "
        f"Leave them out with names={allow}:\n{lines}"
    )


def _calibrate(
    before: nn.Module,
    after: nn.Module,
    plans: dict[str, Plan | str],
    seen: dict[str, Calls],
    batches: Iterable[Any],
    forward: Forward,
    metric: Metric | None,
) -> tuple[Gap, dict[str, Fitted]]:
    kinds = {
        name: (plan.source, plan.target.kind)
        for name, plan in plans.items()
        if isinstance(plan, Plan) and not rule_for(plan.source, plan.target.kind).same
    }
    first, converted = measure(before, after, batches, forward, metric)

    def write(name: str, fitted: Fitted) -> None:
        _write(after.get_submodule(name), fitted)

    for name in _tied(after, [*kinds]):
        del kinds[name]
    fitted = fit(before, after, kinds, seen, batches, forward, write)
    calibrated = measure(before, after, batches, forward, metric)[1] if fitted else converted
    return _gap_of(first, converted, calibrated), fitted


def _tied(network: nn.Module, names: list[str]) -> list[str]:
    """Those whose weight or bias another module holds too: one value cannot fit both."""
    holders = Counter(
        id(parameter) for module in network.modules() for parameter in module._parameters.values()
    )
    held = {name: network.get_submodule(name)._parameters.values() for name in names}
    return [n for n, own in held.items() if any(p is not None and holders[id(p)] > 1 for p in own)]


def _write(module: nn.Module, fitted: Fitted) -> Undo:
    return set_values(module, fitted.values, fitted.statistics)


def _gap_of(first: Any, converted: Any, calibrated: Any = None) -> Gap:
    return Gap(
        first.batches,
        first.samples,
        first.metric,
        converted.metric,
        None if calibrated is None else calibrated.metric,
        converted.difference,
        None if calibrated is None else calibrated.difference,
    )


def _convert_alike(
    network: nn.Module,
    names: tuple[str, ...],
    seen: dict[str, Calls] | None,
    options: Options,
    fitted: dict[str, Fitted],
) -> None:
    """Does to the network itself what its copy went through."""
    options.ties.clear()
    _, undone = _convert(network, names, seen, options)
    try:
        for name, found in fitted.items():
            undone.append(_write(network.get_submodule(name), found))
    except BaseException:
        take_back(undone)
        raise


def _record(
    name: str, plan: Plan | str, fitted: Fitted | None, is_seen: bool, *, calibrated: bool
) -> Conversion:
    if isinstance(plan, str):
        return Conversion(name, "", "", None, (), (), plan)
    rule = rule_for(plan.source, plan.target.kind)
    notes = [f"{rule.aside} are set aside"] if rule.aside else []
    if calibrated and fitted is None and not rule.same:
        shared = "another module has its weight or bias too"
        notes.append(f"not fitted: {shared if is_seen else 'no batch reaches it'}")
    if fitted is not None and fitted.calls > 1:
        notes.append(f"called {fitted.calls} times: the later inputs moved with the fit")
    explained = None if fitted is None else fitted.explained
    lost, notes = tuple(plan.lost), notes + plan.notes
    return Conversion(name, plan.before, describe(plan.target), explained, lost, tuple(notes), "")
