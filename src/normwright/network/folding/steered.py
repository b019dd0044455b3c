"""Whether hooks are why a folded network is wrong: a trace runs without them, and may take another way."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import nn

from normwright.errors import FoldError
from normwright.network.copying import copied
from normwright.network.folding.hooked import HOOKS

_Check = Callable[[nn.Module, nn.Module], object]


def explained(
    error: FoldError, unfolded: nn.Module, folded: nn.Module, hooked: Collection[str], check: _Check
) -> FoldError:
    """The error, and the hooks without which the folded network is right.

    Args:
        error: what the check raised of the two networks.
        unfolded: the network; it is not run.
        folded: the folded one; likewise.
        hooked: names of the modules that have hooks.
        check: of an unfolded and a folded network, which it runs; raises FoldError.
    """
    alone = [(name,) for name in sorted(hooked)]
    together = [tuple(sorted(hooked))] if len(hooked) > 1 else []
    for names in alone + together:
        if _passes(check, *(_without_hooks(network, names) for network in (unfolded, folded))):
            break
    else:
        return error
    modules = ", ".join(repr(name) if name else "the network itself" for name in names)
    return FoldError(
        f"{error}. Without the hooks of {modules} it is right: with them the forward takes another way, "
        "which a trace, where hooks do not run, does not see: do in a forward what they do, or remove them "
        "(handle.remove()) and fold the network as it then runs"
    )


def _without_hooks(network: nn.Module, names: Collection[str]) -> nn.Module:
    network = copied(network)
    for name in names:
        for kind in HOOKS:
            getattr(network.get_submodule(name), kind).clear()
    return network


def _passes(check: _Check, *networks: nn.Module) -> bool:
    try:
        check(*networks)
    except Exception:  # also what a network raises that needs its hooks
        return False
    return True
