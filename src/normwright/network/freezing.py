"""Holds the running statistics of a network's normalisers where they are, and lets them go again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from normwright.errors import OptionError
from normwright.network.acceleration.route import own_class
from normwright.network.copying import copied
from normwright.network.frozen_class import (
    derives_from_frozen,
    frozen_class,
    hold,
    is_frozen,
    let_go,
    unfrozen_class,
)
from normwright.network.names import names_in
from normwright.network.table import Table
from normwright.network.walk import KEEPING, check_network, find_normalisers, take_classes

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class FreezeRecord:
    """One normaliser.

    Args:
        name: qualified, as `named_modules` has it first; "" for the network itself.
        kind: its class's name, without a freeze.
        frozen: whether it is, now.
        changed: whether it became so by this call.
        reason: why it is not frozen, or what else there is to know.
    """

    name: str
    kind: str
    frozen: bool
    changed: bool
    reason: str


@dataclass(frozen=True)
class FreezeReport:
    """Every normaliser of a network, frozen or not.

    Example:
        >>> print(FreezeReport((FreezeRecord("bn", "BatchNorm2d", True, True, ""),)))
        1 of 1 normalisers have frozen statistics, 1 of them changed now.
        layer  normaliser   became
        bn     BatchNorm2d  frozen
    """

    normalisers: tuple[FreezeRecord, ...]

    def table(self) -> Table:
        """A row for each normaliser."""
        frozen = sum(record.frozen for record in self.normalisers)
        changed = sum(record.changed for record in self.normalisers)
        return Table(
            f"{frozen} of {len(self.normalisers)} normalisers have frozen statistics, "
            f"{changed} of them changed now.",
            ("layer", "normaliser", "became", "why"),
            tuple(
                (record.name or "(network)", record.kind, _became(record), record.reason)
                for record in self.normalisers
            ),
        )

    def __str__(self) -> str:
        return str(self.table())


def _became(record: FreezeRecord) -> str:
    if not record.frozen:
        return "left alone"
    return "frozen" if record.changed else "frozen before"


def freeze(network: Network, *, names: Iterable[str] | None = None, inplace: bool = False) -> Network:
    """Freezes the running statistics of batch and instance normalisers: `train()` does not move them.

    A frozen normaliser stays in inference: it normalises by its running statistics and leaves them as they
    are, whatever mode the network is put in, and under `torch.optim.swa_utils.update_bn`. It keeps its
    parameters (which are still trained), buffers, hooks, momentum and `state_dict`, every reference to it,
    and its own forward; its class becomes a subclass of its class. Batch norm (synchronised, ghost, split,
    masked and recurrent too), instance norm and whitening in any dimension can be frozen, and what derives
    from them; a subclass that `accelerate` made call our function calls PyTorch's again.

    Convert to `torch.nn.SyncBatchNorm` before freezing: PyTorch's conversion makes new modules, which train.

    Args:
        network: of any kind, in any mode.
        names: normalisers, or modules that hold some, by qualified name; None for all.
        inplace: change the network itself; else a copy of it.
    Returns:
        The frozen network; `network.freeze_with_report` says what was done.
    Raises:
        OptionError: not a module, a name that it does not have, or nothing that can be frozen in it or
            under a name. The network is left as it was.
    Example:
        >>> network = freeze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))).train()
        >>> type(network[1]).__name__, network[1].training, network[0].training
        ('FrozenBatchNorm2d', False, True)
    """
    return freeze_with_report(network, names=names, inplace=inplace)[0]


def freeze_with_report(
    network: Network, *, names: Iterable[str] | None = None, inplace: bool = False
) -> tuple[Network, FreezeReport]:
    """`freeze`, with a record of every normaliser.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm2d(8), nn.LayerNorm(8))
        >>> print(freeze_with_report(network)[1])
        1 of 2 normalisers have frozen statistics, 1 of them changed now.
        layer  normaliser   became      why
        0      BatchNorm2d  frozen
        1      LayerNorm    left alone  it has no running statistics
    """
    check_network(network)
    by_name = _by_name(network, names)
    chosen = set().union(*by_name.values())
    changed = network if inplace else copied(network)
    records: list[FreezeRecord] = []
    kinds: dict[nn.Module, type[nn.Module]] = {}
    for name, module in find_normalisers(changed).items():
        own = unfrozen_class(type(module))
        frozen, reason = is_frozen(module), why_not_frozen(module)
        now = not frozen and not reason and name in chosen
        if now:
            kinds[module] = frozen_class(own_class(own))
            reason = _to_know(module)
        elif not frozen and not reason:
            reason = "it is not among the names"
        records.append(FreezeRecord(name, own.__name__, frozen or now, now, reason))
    report = FreezeReport(tuple(records))
    for name, found in by_name.items():
        if not any(record.frozen for record in records if record.name in found):
            reasons = [f"{record.kind}: {record.reason}" for record in records if record.name in found]
            if isinstance(network, torch.jit.ScriptModule):
                reasons.append("the network is compiled by torch.jit, which hides their classes")
            where = f"of {name} " if name else ""
            raise OptionError(
                f"a normaliser {where}must have running statistics to be frozen, but "
                f"{'; '.join(dict.fromkeys(reasons)) or 'there is none of those known here'}"
            )
    take_classes(kinds)
    for module in kinds:
        hold(module)
    return changed, report


def unfreeze(network: Network, *, names: Iterable[str] | None = None, inplace: bool = False) -> Network:
    """Undoes `freeze`: class and mode are as if it had never been.

    The mode is the last that `train()` or `eval()` asked for. Momentum and the count of batches were kept,
    so that the statistics move on from where they stood. What was built frozen stays so.

    Args:
        network: frozen or not.
        names: normalisers, or modules that hold some, by qualified name; None for all.
        inplace: change the network itself; else a copy of it.
    Returns:
        The network, which trains its statistics again.
    Raises:
        OptionError: not a module, or a name that it does not have.
    Example:
        >>> frozen = freeze(nn.BatchNorm2d(8))
        >>> unfreeze(frozen).training, type(unfreeze(frozen)) is nn.BatchNorm2d
        (True, True)
    """
    check_network(network)
    by_name = _by_name(network, names)
    chosen = set().union(*by_name.values())
    changed = network if inplace else copied(network)
    kinds: dict[nn.Module, type[nn.Module]] = {}
    for name, module in find_normalisers(changed).items():
        own = unfrozen_class(type(module))
        if name in chosen and own is not type(module):
            kinds[module] = own
        elif name in chosen and derives_from_frozen(type(module)):
            raise OptionError(
                f"{name or 'the network'} must have the class that freeze gave it, but is a "
                f"{type(module).__name__}: remove the parametrizations that it got since"
            )
    take_classes(kinds)
    for module in kinds:
        let_go(module)
    return changed


def why_not_frozen(module: nn.Module) -> str:
    """Why a normaliser cannot be frozen, or ""."""
    if is_frozen(module):
        return ""
    if isinstance(module, LazyModuleMixin):
        return "it is lazy: freeze the network after its first batch"
    if not isinstance(module, KEEPING):
        return "it has no running statistics"
    if not getattr(module, "track_running_stats", True) or module.running_mean is None:
        return "it does not track its statistics"
    if parametrize.is_parametrized(module):
        return "its parameters are parametrized, which gives it a class of its own"
    return ""


def _to_know(module: nn.Module) -> str:
    """What a user who froze a subclass should know of it."""
    forward = type(module).forward
    if forward.__module__.startswith(("torch.nn.", "normwright.nn.")):
        return ""
    return "its own forward runs as in inference"


def _by_name(network: nn.Module, names: Iterable[str] | None) -> dict[str, set[str]]:
    """Under each name given, the names of the normalisers; all under "" where none is given."""
    found = find_normalisers(network)
    if names is None:
        return {"": set(found)}
    under = {}
    for name in [names] if isinstance(names, str) else names_in("names=", names):
        try:
            inside = set(network.get_submodule(name).modules())
        except AttributeError as error:
            raise OptionError(
                f"the network has no module {name!r} ({error}): take a name from network.named_modules()"
            ) from error
        under[name] = {normaliser for normaliser, module in found.items() if module in inside}
    return under
