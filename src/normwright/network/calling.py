"""How a network is called with an example, and what of its output can be compared."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

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
        """The call with every tensor of its arguments put through the function.

        Its lists and dicts are new ones, for the network may write in them.
        """
        args, named = pytree.tree_map(lambda leaf: leaf, (self.args, self.named))
        return Call(mapped(args, function), mapped(named, function))


def call_of(example: Any) -> Call:
    """The call that an example stands for.

    Args:
        example: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
    Raises:
        OptionError: something else.
    Example:
        >>> call_of({"pixel_values": torch.ones(1)}).named
        {'pixel_values': tensor([1.])}
    """
    if isinstance(example, Tensor | PackedSequence):
        return Call((example,), {})
    if isinstance(example, tuple):
        return Call(example, {})
    if isinstance(example, Mapping):
        return Call((), dict(example))
    raise OptionError(
        "an example must be a tensor, a tuple of positional arguments or a mapping of keyword arguments, but "
        f"is {type(example).__name__}"
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

    They may lie in tuples, lists, mappings, dataclasses and what is registered with PyTorch's pytree, however
    nested. What they are all there already in is returned itself.
    """
    held = next(itertools.chain(network.parameters(), network.buffers()), None)
    if held is None:
        return value
    return mapped(value, lambda tensor: tensor.to(held.device), held.device)


def mapped(
    value: Any,
    function: Callable[[Tensor], Tensor],
    device: torch.device | None = None,
    within: tuple[Any, ...] = (),
) -> Any:
    """A value with every tensor in it put through a function; the value itself where that changes nothing.

    Args:
        value: of tuples, lists, mappings, dataclasses and what is registered with PyTorch's pytree, however
            nested.
        function: of a tensor.
        device: where it moves tensors to, if it does: a mapping may move itself.
        within: what holds the value, from outside in: what holds itself, as a node of a tree may, ends there.
    """
    if isinstance(value, Tensor):
        return function(value)
    parts, rebuilt = _taken_apart(value, device)
    if not parts or any(value is outer for outer in within):
        return value
    new = [mapped(part, function, device, (*within, value)) for part in parts]
    return value if all(map(operator.is_, parts, new)) else rebuilt(new)


def _taken_apart(value: Any, device: torch.device | None) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """What a container holds, and what makes one like it of others; nothing of what is none."""
    kind = type(value)
    if kind is tuple or kind is list:  # as the pytree would, at a tenth of its price
        return list(value), kind
    if kind is dict:
        return list(value.values()), lambda new: dict(zip(value, new, strict=True))
    if isinstance(value, PackedSequence):
        data, sizes, *orders = value  # the sizes stay on the CPU
        return [data, *orders], lambda new: PackedSequence(new[0], sizes, *new[1:])
    if kind in pytree.SUPPORTED_NODES:
        parts, structure = pytree.tree_flatten(value, is_leaf=lambda part: part is not value)
        return parts, lambda new: pytree.tree_unflatten(new, structure)
    if isinstance(value, Mapping):
        return list(value.values()), lambda new: _mapping_like(value, new, device)
    if isinstance(value, tuple):
        return list(value), lambda new: _tuple_like(value, new)
    if isinstance(value, list):
        return list(value), lambda new: _list_like(value, new)
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, nn.Module)):
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        return [getattr(value, name) for name in names], lambda new: _record_like(value, names, new)
    return [], lambda new: value


def _mapping_like(value: Mapping[Any, Any], parts: list[Any], device: torch.device | None) -> Any:
    """Of its own class, of which it may have attributes; a dict where nothing can be put in."""
    if device is not None and callable(getattr(type(value), "to", None)):
        return copy.copy(value).to(device)  # type: ignore[attr-defined]  # some move in place
    new = dict(zip(value, parts, strict=True))
    if not isinstance(value, MutableMapping):
        return new
    there = copy.copy(value)
    for key, part in new.items():
        there[key] = part
    return there


def _tuple_like(value: tuple[Any, ...], parts: list[Any]) -> tuple[Any, ...]:
    """Of its own class, whatever that is built of; a named tuple, too."""
    there = tuple.__new__(type(value), parts)
    if hasattr(value, "__dict__"):
        vars(there).update(vars(value))
    return there


def _list_like(value: list[Any], parts: list[Any]) -> list[Any]:
    """Of its own class, whatever that is built of."""
    there = copy.copy(value)
    there[:] = parts
    return there


def _record_like(value: Any, names: list[str], parts: list[Any]) -> Any:
    """Of its own dataclass, without its constructor, which may do more; a frozen one, too."""
    there = copy.copy(value)
    for name, part in zip(names, parts, strict=True):
        object.__setattr__(there, name, part)
    return there


def widened(value: Tensor) -> Tensor:
    """A floating-point tensor in float64, any other as it is."""
    return value.to(torch.float64) if value.is_floating_point() else value


def is_compiled(network: nn.Module) -> bool:
    """Whether `torch.compile` or `compile()` has a module of the network, which may be wrapped.

    Example:
        >>> is_compiled(nn.Linear(2, 2))
        False
    """
    return any(
        hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in network.modules()
    )


def without_compiled_code() -> contextlib.AbstractContextManager[object]:
    """Inside, what was compiled runs as Python, where hooks and modes are met."""
    # Without torch._dynamo nothing was compiled, and importing it takes a second.
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
