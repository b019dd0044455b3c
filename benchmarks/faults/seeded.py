"""What a seeded fault is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import nn

from benchmarks.faults.patients import Patient

State: TypeAlias = Literal["fresh", "trained"]
#: In the order in which they are examined.
STATES: tuple[State, ...] = ("fresh", "trained")


@dataclass(frozen=True)
class Seeded:
    """A mistake that somebody makes with one network.

    Args:
        name: of the fault, unique.
        rule: that should find it.
        network: a key of `PATIENTS`.
        what: what the person did, in words that fit a table.
        plant: the healthy patient's sick self.
        where: layers by which it is found, as parts of their names; () where it has no place.
        explains: other rules that may speak up on its account, and why they are right to.
        states: in which it is to be found. What shows only in training is not asked of a fresh network.
        after_training: it is planted in the trained network (a checkpoint, a fine-tuning), else before.
        ranks: it takes two processes, which train together.
    """

    name: str
    rule: str
    network: str
    what: str
    plant: Callable[[Patient], Patient]
    where: tuple[str, ...] = ()
    explains: Mapping[str, str] = field(default_factory=dict)
    states: tuple[State, ...] = STATES
    after_training: bool = False
    ranks: bool = False


def rewritten(network: nn.Module, kind: type[nn.Module], by: type[nn.Module]) -> nn.Module:
    """The network as if the class's file had been edited: its modules get another class's methods."""
    changed = [module for module in network.modules() if type(module) is kind]
    assert changed, kind
    for module in changed:
        module.__class__ = by
    return network


def replaced(network: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """The network with every module of a class replaced in place."""
    found = [name for name, module in network.named_modules() if isinstance(module, kind)]
    assert found, kind
    for name in found:
        network.set_submodule(name, make(network.get_submodule(name)))
    return network
