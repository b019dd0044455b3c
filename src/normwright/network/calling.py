"""How a network is called with an example, and what of its output can be compared."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from normwright.errors import OptionError

_WITHOUT_TENSORS = (Tensor, int, float, complex, str, bytes, torch.dtype, torch.device)


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a network."""

    args: tuple[Any, ...]
    named: dict[str, Any]

    def of(self, network: nn.Module) -> Any:
        """What the network returns."""
        return network(*self.args, **self.named)

    def map(self, function: Callable[[Tensor], Tensor]) -> Call:
        """The call with every tensor of its arguments put through the function."""
        return Call(_mapped(self.args, function), _mapped(self.named, function))


def call_of(example: Any) -> Call:
    """The call that an example stands for.

    Args:
        example: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
    Raises:
        OptionError: something else.
    Example:
        >>> call_of({"pixel_values": torch.ones(1)}).named
        {'pixel_values': tensor([1.])}
    """
    if isinstance(example, Tensor):
        return Call((example,), {})
    if isinstance(example, tuple):
        return Call(example, {})
    if isinstance(example, dict):
        return Call((), dict(example))
    raise OptionError(
        "an example must be a tensor, a tuple of positional arguments or a dict of keyword arguments, but is "
        f"{type(example).__name__}"
    )


def tensors_of(output: Any) -> list[Tensor]:
    """Every tensor of an output, in order: of tuples, lists, mappings and dataclasses, however nested.

    Example:
        >>> len(tensors_of({"logits": torch.ones(1), "states": (torch.ones(1), None)}))
        2
    """
    return list(_tensors(output))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


def unknown_in(output: Any) -> str:
    """The name of a class in an output whose objects may hold tensors that `tensors_of` misses, or "".

    Example:
        >>> unknown_in({"logits": torch.ones(1), "sizes": (3, None, "a")}), unknown_in([{1, 2}])
        ('', 'set')
    """
    if output is None or isinstance(output, _WITHOUT_TENSORS):
        return ""
    if isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, (tuple, list)):
        parts = list(output)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        parts = [getattr(output, field.name) for field in dataclasses.fields(output)]
    else:
        return type(output).__name__
    return next(filter(None, map(unknown_in, parts)), "")


def moved(value: Any, network: nn.Module) -> Any:
    """The same with its tensors on the network's device, if that holds a tensor itself.

    They may lie in tuples, lists and mappings, however nested; a mapping becomes a dict.
    """
    held = next(itertools.chain(network.parameters(), network.buffers()), None)
    return value if held is None else _mapped(value, lambda tensor: tensor.to(held.device))


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, PackedSequence):
        data, sizes, *orders = value  # the sizes stay on the CPU
        return PackedSequence(function(data), sizes, *_mapped(orders, function))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(part, function) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_mapped(part, function) for part in value)
    if isinstance(value, Mapping):
        return {key: _mapped(part, function) for key, part in value.items()}
    return value


def widened(value: Tensor) -> Tensor:
    """A floating-point tensor in float64, any other as it is."""
    return value.to(torch.float64) if value.is_floating_point() else value
