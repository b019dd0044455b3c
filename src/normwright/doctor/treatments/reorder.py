"""Exchanges two neighbours of an nn.Sequential."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn

from normwright.errors import OptionError


def is_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether a module calls what it holds one after the other, and does no more."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def exchange(network: nn.Module, first: str, second: str) -> None:
    """Lets the second of two neighbours run before the first, in place.

    What is named keeps its name; what is numbered is numbered anew.

    Args:
        network: that holds them.
        first, second: qualified names of two modules in one nn.Sequential, one right after the other.
    Raises:
        OptionError: they are no such neighbours.
    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2))
        >>> exchange(network, "1", "2")
        >>> [type(module).__name__ for module in network]
        ['Linear', 'BatchNorm1d', 'ReLU']
    """
    holder = network.get_submodule(first.rpartition(".")[0])
    keys = list(holder._modules)
    one, other = first.rpartition(".")[2], second.rpartition(".")[2]
    if not is_sequence(holder) or second.rpartition(".")[0] != first.rpartition(".")[0]:
        raise OptionError(f"{first} and {second} must stand in one nn.Sequential to be exchanged")
    place = keys.index(one)
    if keys[place + 1 : place + 2] != [other]:
        raise OptionError(f"{second} must come right after {first} to be exchanged with it")
    modules = list(holder._modules.items())
    modules[place : place + 2] = reversed(modules[place : place + 2])
    numbered = all(key.isdecimal() for key in keys)
    holder._modules.clear()
    for key, (name, module) in zip(keys, modules, strict=True):
        holder._modules[key if numbered else name] = module
