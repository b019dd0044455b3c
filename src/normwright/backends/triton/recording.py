"""Watches one call of an operator: what it allocates, what it returns, and what it launches with what.

A launch's pointers are written down as "so many bytes into that tensor", which holds for every other call
whose tensors have these shapes and strides. A call that does anything besides (a copy into another order,
a value read back) is not written down: repeating its launches would not repeat it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from normwright.backends.triton.launch import WATCHED, Launch

_aten = torch.ops.aten
_ALLOCATIONS = (
    _aten.empty.memory_format,
    _aten.empty_like.default,
    _aten.empty_strided.default,
    _aten.new_empty.default,
)
_ALIGNMENT = 256  # of every piece of the scratch memory, in bytes


class Address(NamedTuple):
    """An argument that is a pointer: bytes into a tensor, which are the given, the returned, then scratch."""

    place: int
    offset: int
    dtype: torch.dtype
    shape: torch.Size
    strides: tuple[int, ...]


class Blank(NamedTuple):
    """A tensor that is allocated for a result."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Recording:
    """All that a call does.

    Args:
        blanks: the results, in the order in which they are returned.
        scratch: bytes of memory for what is not returned.
        returned: for each result of the operator, which of the blanks it is, or None.
        launches: in their order, with addresses for tensors.
    """

    blanks: tuple[Blank, ...]
    scratch: int
    returned: tuple[int | None, ...]
    launches: tuple[Launch, ...]


class _Watch(TorchDispatchMode):
    """Keeps all that is allocated, and sees whether anything else is done than looking at tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated: list[Tensor] = []
        self.only_looks = True

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if WATCHED.launches is None:  # within a launch
            return result
        if function in _ALLOCATIONS:
            self.allocated.append(result)
        elif function._schema.is_mutable or not (args and _is_view(result, args[0])):
            self.only_looks = False
        return result


def _is_view(result: Any, source: Any) -> bool:
    # The operator does not tell: `reshape` is said to give a view, and may give a copy.
    views = result if isinstance(result, (list, tuple)) else (result,)
    return isinstance(source, Tensor) and all(
        isinstance(view, Tensor) and view.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
        for view in views
    )


class _Memory(NamedTuple):
    """Where a tensor lies: the bytes from start to end, `offset` bytes into what has this place."""

    start: int
    end: int
    place: int
    offset: int


def _memory(tensor: Tensor, place: int = 0, offset: int = 0) -> _Memory:
    start = tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return _Memory(start, start + (last + 1) * tensor.element_size(), place, offset)


def are_apart(tensors: Sequence[Tensor | None]) -> bool:
    """Whether each tensor lies in memory of its own, so that an address tells which it is in."""
    memories = sorted(_memory(tensor) for tensor in tensors if tensor is not None)
    return all(one.end <= other.start for one, other in itertools.pairwise(memories))


def record(
    kernel: Callable[..., Any], call: Sequence[Any], given: Sequence[Tensor | None]
) -> tuple[Any, Recording | None]:
    """Makes a call; returns its result, and what it did, if that is all.

    Args:
        kernel: of the operator.
        call: its arguments.
        given: the tensors among them, which must be apart.
    """
    watch = _Watch()
    launches: list[Launch] = []
    WATCHED.launches = launches
    try:
        with watch:
            result = kernel(*call)
    finally:
        WATCHED.launches = None
    results = result if isinstance(result, tuple) else (result,)
    kept = [tensor for tensor in results if tensor is not None]
    scratch = {_memory(tensor): tensor for tensor in watch.allocated}
    whole = [scratch.pop(_memory(tensor), None) is not None for tensor in kept]
    if not (watch.only_looks and all(whole)):
        return result, None
    memories = [_memory(tensor, place) for place, tensor in enumerate((*given, *kept)) if tensor is not None]
    end, place = 0, len(given) + len(kept)
    for tensor in scratch.values():
        memories.append(_memory(tensor, place, end))
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    recorded = [launch for launch in (_recorded(made, memories) for made in launches) if launch is not None]
    if len(recorded) < len(launches):
        return result, None
    blanks = tuple(Blank(tensor.shape, tensor.stride(), tensor.dtype) for tensor in kept)
    numbers = iter(range(len(kept)))
    returned = tuple(None if tensor is None else next(numbers) for tensor in results)
    return result, Recording(blanks, end, returned, tuple(recorded))


def _recorded(launch: Launch, memories: Sequence[_Memory]) -> Launch | None:
    """The launch with addresses for tensors; None where one lies in no memory that is known."""
    arguments = []
    for value in launch.arguments:
        if isinstance(value, Tensor):
            value = _address(value, memories)
            if value is None:
                return None
        arguments.append(value)
    return launch._replace(arguments=tuple(arguments))


def _address(tensor: Tensor, memories: Sequence[_Memory]) -> Address | None:
    at = _memory(tensor)
    found = [memory for memory in memories if memory.start <= at.start and at.end <= memory.end]
    if len(found) != 1:
        return None
    place, offset = found[0].place, found[0].offset + at.start - found[0].start
    return Address(place, offset, tensor.dtype, tensor.shape, tensor.stride())
