"""What a converted normaliser knows of what it was, so that the way back restores it.

The memory lies beside the module's state, not in it: a checkpoint of the converted network is that of any
network of the kind, and one loaded elsewhere has no way back to statistics that it does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

_ATTRIBUTE = "_converted_from"

Values = dict[str, Tensor | None]


@dataclass
class Former:
    """A normaliser as it was under one kind.

    Args:
        cls: its class.
        settings: its attributes, such as momentum.
        parameters: its own `nn.Parameter` objects, which an optimiser may hold.
        buffers: its statistics.
        before: weight and bias when it was left; None where the kind has none.
        given: what the kind after it began with. Where these still stand, nobody has trained them, and the
            way back gives `before`, to the bit.
    """

    cls: type[nn.Module]
    settings: dict[str, Any]
    parameters: Values
    buffers: Values
    before: Values
    given: Values

    def is_untrained(self, module: nn.Module) -> bool:
        """Whether a module's weight and bias are what they were given when this kind was left."""
        return all(_same(tensor_of(module, name), value) for name, value in self.given.items())

    def buffer(self, name: str, like: Tensor) -> Tensor | None:
        """A statistic, moved and cast as the module has been since.

        Args:
            name: of the buffer.
            like: the module's weight or the like, as it is now.
        """
        value = self.buffers.get(name)
        if value is None:
            return None
        weight = self.before.get("weight")
        is_cast = value.is_floating_point() and (weight is None or weight.dtype != like.dtype)
        return value.to(device=like.device, dtype=like.dtype if is_cast else value.dtype)


@dataclass
class Memory:
    """Every kind that a normaliser has been since it was the first, and the one it is meant to be now.

    All are "" and empty in one that was never converted, or that was converted back to what it was first.
    """

    kind: str = ""
    first: str = ""
    formers: dict[str, Former] = field(default_factory=dict)


def memory_of(module: nn.Module) -> Memory:
    """A module's memory; an empty one where nobody converted it."""
    memory = module.__dict__.get(_ATTRIBUTE)
    return memory if isinstance(memory, Memory) else Memory()


def remember(attributes: dict[str, Any], memory: Memory) -> None:
    """Puts a memory among a module's attributes, or takes it away where there is nothing to remember."""
    attributes.pop(_ATTRIBUTE, None)
    if memory.formers:
        attributes[_ATTRIBUTE] = memory


def tensor_of(module: nn.Module, name: str) -> Tensor | None:
    """A module's parameter or buffer of that name, or None."""
    found = module._parameters.get(name)
    return module._buffers.get(name) if found is None else found


def _same(current: Tensor | None, given: Tensor | None) -> bool:
    if current is None or given is None:
        return current is given
    if current.is_meta or given.is_meta:
        return current.shape == given.shape
    # A network may have been moved or cast in between.
    return current.shape == given.shape and torch.equal(current.detach(), given.to(current))
