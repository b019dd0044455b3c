"""Which normalisers of a network a conversion is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from normwright.errors import OptionError, unknown_name
from normwright.network.acceleration.drop_in import normalisers_by_name
from normwright.network.conversion.kinds import (
    BATCH_KINDS,
    CLASSES,
    KINDS,
    NOT_CONVERTED,
    known_base,
    species_of,
)
from normwright.network.conversion.memory import memory_of
from normwright.network.names import names_in
from normwright.network.walk import find_normalisers

Names = Iterable[str] | Callable[[str, nn.Module], bool]


def choose(
    network: nn.Module, to: str, names: Names | None, of: Iterable[str] | None
) -> dict[str, nn.Module]:
    """The normalisers that shall become `to`, in registration order; those that are it already among them.

    Args:
        network: any.
        to: one of `KINDS`.
        names: qualified names, of normalisers or of modules that hold some, or a function (name, module) ->
            bool; None for all of the kinds `of`.
        of: kinds; None for every batch norm and every normaliser that a conversion made. So an instance,
            group, layer or RMS norm that was always one is left alone unless it is asked for.
    Raises:
        OptionError: an unknown kind or name, or nothing is chosen.
    """
    kinds = checked_kinds(to, of)
    found = find_normalisers(network)
    if not found and isinstance(network, torch.jit.ScriptModule):
        raise OptionError(
            "the network must hold normalisers to be converted, but is compiled by torch.jit, which hides "
            "their classes: convert it before it is scripted or traced"
        )
    if not found:
        raise OptionError(
            f"the network ({type(network).__name__}) must hold normalisers to be converted, but holds none"
            f"{_instead(network)}"
        )
    if callable(names):
        chosen = {name: module for name, module in found.items() if names(name, module)}
    elif names is not None:
        chosen = _named(network, found, names)
    else:
        chosen = {name: module for name, module in found.items() if _is_of(module, kinds)}
        held = sorted({_kind_of(module) for module in found.values()})
        if not chosen:
            raise OptionError(
                f"the network must hold a normaliser of the kinds {', '.join(kinds or BATCH_KINDS)}, but its "
                f"{len(found)} are of the kinds {', '.join(held)}: {_advice(held)}"
            )
    if not chosen:
        raise OptionError(
            f"names= must choose a normaliser, but choose none of the network's {len(found)}: "
            f"{', '.join(list(found)[:5])}{', …' if len(found) > 5 else ''}"
        )
    return chosen


def checked_kinds(to: str, of: Iterable[str] | None) -> tuple[str, ...] | None:
    """The kinds of `of`; raises OptionError where one of them, or `to`, is none that is converted."""
    kinds = None if of is None else names_in("of=", of)
    for kind in kinds or ():
        why = _why_not_converted(kind)
        if why:
            raise OptionError(
                f"of= must be of {', '.join(KINDS)}, but holds {kind!r}, which becomes no other kind: {why}. "
                "Leave it as it is, or train a network without it"
            )
    for kind in (to, *(kinds or ())):
        if kind in NOT_CONVERTED:
            raise OptionError(
                f"a normaliser must be converted to one of {', '.join(KINDS)}, but is asked to be {kind}: "
                f"{NOT_CONVERTED[kind][1]}. Train a network with it, as normwright compare does"
            )
        if kind not in KINDS:
            raise unknown_name("kind of normaliser", kind, KINDS)
    return kinds


def _instead(network: nn.Module) -> str:
    """What stands where a normaliser might, and what to do about it."""
    named = dict.fromkeys(type(module).__name__ for module in normalisers_by_name(network).values())
    if named:
        return (
            f" that is known here: {', '.join(named)} derives from none of torch.nn. Put torch.nn.RMSNorm, "
            "LayerNorm or the like in its place"
        )
    return ": a functional call such as F.batch_norm is no module; make it a torch.nn.BatchNorm2d or the like"


def _advice(held: list[str]) -> str:
    """What to do about normalisers of these kinds and no other."""
    why_not = {kind: _why_not_converted(kind) for kind in held}
    if not all(why_not.values()):
        return "name these with of= or names="
    return "; ".join(f"{kind} becomes no other kind, since {why}" for kind, why in why_not.items())


def _why_not_converted(kind: Any) -> str:
    """Why a kind, or a class of normwright's own by its name, becomes no other; or ""."""
    for name, (stem, why) in NOT_CONVERTED.items():
        if kind == name or (isinstance(kind, str) and kind.startswith(stem)):
            return why
    return ""


def _named(network: nn.Module, found: dict[str, nn.Module], names: Iterable[str]) -> dict[str, nn.Module]:
    every = dict(network.named_modules(remove_duplicate=False))
    normalisers = set(found.values())
    chosen: set[nn.Module] = set()
    for name in names_in("names=", names):
        if name not in every:
            raise unknown_name("normaliser", name, found)
        under = normalisers.intersection(every[name].modules())
        if not under:
            kind = type(every[name]).__name__
            raise OptionError(f"{name!r} must be a normaliser or hold one, but is a {kind}")
        chosen |= under
    return {name: module for name, module in found.items() if module in chosen}


def _is_of(module: nn.Module, kinds: tuple[str, ...] | None) -> bool:
    kind = _kind_of(module)
    if kinds is None:
        return kind in BATCH_KINDS or bool(memory_of(module).formers)
    return kind in kinds


def _kind_of(module: nn.Module) -> str:
    """Of its nearest known class, whatever it does beyond that."""
    species = species_of(module)
    if not isinstance(species, str):
        return species.kind
    base = known_base(type(module))
    if base is not None:
        return CLASSES[base].kind
    return "frozen" if "FrozenBatchNorm" in type(module).__name__ else type(module).__name__
