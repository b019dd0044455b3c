"""Sees what a network's code uses of modules, other than calling them with a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from normwright.network.calling import Call


def used_from_outside(
    network: nn.Module, call: Call, names: Iterable[str], *, call_too: bool, watched: Callable[[str], bool]
) -> dict[str, str]:
    """What one call of a network uses of some modules that is not there once they are replaced, by name.

    Args:
        network: a copy, which is changed.
        call: its arguments.
        names: of the modules.
        call_too: whether a call must be one of a tensor alone.
        watched: which attributes must not be read, but in the module's own call.
    Returns:
        Why each module of those that are used so must stay; nothing of a call that fails.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        module = network.get_submodule(name)
        kind = _watching(type(module), name, found, watched, call_too)
        try:
            object.__setattr__(module, "__class__", kind)
        except TypeError:  # of another layout: a compiled module
            continue
    try:
        with torch.no_grad():
            call.of(network)
    except Exception:
        return {}
    return found


def _watching(
    kind: type[nn.Module],
    name: str,
    found: dict[str, str],
    watched: Callable[[str], bool],
    call_too: bool,
) -> type[nn.Module]:
    inside = [0]

    def get(self: nn.Module, attribute: str) -> Any:
        if not inside[0] and watched(attribute):
            found.setdefault(name, f"its {attribute} is read from outside of it")
        inside[0] += 1  # what a property reads is its own
        try:
            return kind.__getattribute__(self, attribute)
        finally:
            inside[0] -= 1

    def called(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if call_too and (len(args) + len(kwargs) != 1 or not kwargs.keys() <= {"input"}):
            found.setdefault(name, "it is called with more than a tensor, or by another name than input")
        inside[0] += 1
        try:
            return kind.__call__(self, *args, **kwargs)
        finally:
            inside[0] -= 1

    return type(kind.__name__, (kind,), {"__getattribute__": get, "__call__": called})
