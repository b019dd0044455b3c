"""Repeats what a call does, without asking again how its launches are made.

That hangs on the shapes, strides, dtypes and alignment of the call's tensors, on its settings and on its
device alone. The first call of a kind is ordinary, the second is recorded (`recording.py`), every later one
allocates its results, asks for addresses and launches. Most of what that saves the host is Triton's own way
from a kernel to its launch, which asks as much of every argument, and again for the options of its compiler.

A launch that is compiled is made through `CompiledKernel.run`, with the arguments that Triton's own
`JITFunction.run` gives it. Where those are not known, and where launches are watched by hooks (a profiler's),
calls are ordinary.

On an H200 (Triton 3.6), microseconds of the host on a tensor of 4×8×2×2, ordinary, repeated and PyTorch's:
batch norm forward 170, 55, 35, step 1084, 299, 165; group norm forward 174, 55, 46; inference 130, 36, 45. A
step of ResNet-50 took the host 56, 32 and 27 ms, and the device 38 ms with ours.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver

from normwright.backends.triton import interprets
from normwright.backends.triton.launch import Launch
from normwright.backends.triton.recording import Address, Blank, Recording, are_apart, record

# The newest Triton whose `JITFunction.run`, `CompiledKernel` and launcher were read. From 3.8 on a kernel is
# unloaded that is freed: none is, for its JITFunction keeps it.
NEWEST_KNOWN = (3, 9)

# Kinds of calls that are remembered of an operator; beyond, all are forgotten.
MOST_KINDS = 4096

# Of addresses: Triton compiles by whether they are multiples of it.
_ALIGNMENT = 16

_SEEN, _ORDINARY = object(), object()

# Takes the addresses of a call's tensors, 0 where there is none; returns the operator's result, or None where
# it can not be had in this way this time.
Replay = Callable[[list[int]], Any]


def obstacle() -> str | None:
    """Why no call is repeated, or None."""
    version = tuple(map(int, re.findall(r"\d+", triton.__version__)[:2]))
    if version > NEWEST_KNOWN:
        newest = ".".join(map(str, NEWEST_KNOWN))
        return f"every launch is made anew, because how to repeat one is known up to Triton {newest} only"
    if torch.version.hip is not None:
        return "every launch is made anew, because how to repeat one is not known of ROCm"
    return "every launch is made anew in the interpreter" if interprets() else None


_kinds: list[dict[Any, Any]] = []


def forget() -> None:
    """Forgets every kind of call: for who changes the tables of settings."""
    for known in _kinds:
        known.clear()


def compiled_replay(recording: Recording, given: int, device: torch.device) -> Replay | None:
    """A recording as a function, if its launches can be repeated; `given` tensors come with a call.

    All arguments of all launches are brought into one list: addresses of tensors, addresses within them, and
    constants. A launch then picks its own.
    """
    if not all(map(_is_repeatable, recording.launches)):
        return None
    blanks = list(recording.blanks)
    if recording.scratch:
        blanks.append(Blank((recording.scratch,), (1,), torch.uint8))
    makers = [
        functools.partial(torch.empty_strided, *blank[:2], dtype=blank.dtype, device=device)
        for blank in blanks
    ]
    arguments = [value for launch in recording.launches for value in launch.arguments]
    within = list({value[:2]: None for value in arguments if isinstance(value, Address) and value.offset})
    first_constant = given + len(makers) + len(within)
    constants: list[Any] = []

    def number(value: Any) -> int:
        if not isinstance(value, Address):
            constants.append(value)
            return first_constant + len(constants) - 1
        return given + len(makers) + within.index(value[:2]) if value.offset else value.place

    launches = []
    for _, grid, values, _, compiled in recording.launches:
        pick = itemgetter(*map(number, values))
        launches.append((compiled.run, *(*grid, 1, 1)[:3], compiled.function, compiled.packed_metadata, pick))
    results = itemgetter(*(0 if place is None else place + 1 for place in recording.returned))

    def repeat(addresses: list[int]) -> Any:
        active = driver.active
        if active.get_current_device() != device.index:
            with torch.cuda.device(device):
                return repeat(addresses)
        made = [make() for make in makers]
        bits = 0
        for tensor in made:
            address = tensor.data_ptr()
            bits |= address
            addresses.append(address)
        if bits % _ALIGNMENT:  # no allocator of PyTorch's gives such
            return None
        for place, offset in within:
            addresses.append(addresses[place] + offset)
        addresses += constants
        stream = active.get_current_stream(device.index)
        for run, x, y, z, function, metadata, pick in launches:
            run(x, y, z, stream, function, metadata, None, None, None, *pick(addresses))
        return results((None, *made))

    return repeat


def _is_repeatable(launch: Launch) -> bool:
    return (
        all(hasattr(launch.compiled, name) for name in ("run", "function", "packed_metadata"))
        and len(launch.arguments) == len(launch.kernel.arg_names)
        and not launch.kernel.pre_run_hooks
    )


def _has_hooks() -> bool:
    runtime = knobs.runtime
    for hook in (runtime.launch_enter_hook, runtime.launch_exit_hook):
        if hook is not None and getattr(hook, "calls", True):
            return True
    return False


def _kind(call: Sequence[Any], tensors: int) -> tuple[tuple[Any, ...], list[int]]:
    """All that a call's launches hang on, and the addresses of its tensors."""
    kind: list[Any] = []
    addresses = []
    for tensor in call[:tensors]:
        if tensor is None:
            kind.append(None)
            addresses.append(0)
        else:
            address = tensor.data_ptr()
            addresses.append(address)
            past = address % _ALIGNMENT  # which tells how what lies within the tensor is aligned
            kind += (tensor.shape, tensor.stride(), tensor.dtype, tensor.get_device(), past)
    return (*kind, *call[tensors:]), addresses


def replayed(
    ordinary: Callable[..., Any],
    tensors: int,
    prepare: Callable[[Recording, int, torch.device], Replay | None] = compiled_replay,
) -> Callable[..., Any]:
    """An operator whose calls are repeated where they can be; its first arguments are `tensors`."""
    known: dict[Any, Any] = {}
    _kinds.append(known)

    def operator(*call: Any) -> Any:
        kind, addresses = _kind(call, tensors)
        replay = known.get(kind)
        if replay is None:
            result = ordinary(*call)
            if len(known) >= MOST_KINDS:
                known.clear()
            known[kind] = _SEEN
            return result
        if replay is _ORDINARY or _has_hooks():
            return ordinary(*call)
        if replay is _SEEN:
            return first(call, kind)
        result = replay(addresses)
        return ordinary(*call) if result is None else result

    def first(call: Sequence[Any], kind: Any) -> Any:
        given: tuple[Tensor | None, ...] = tuple(call[:tensors])
        if not are_apart(given):  # an address would not tell which tensor it is in; another call's may
            return ordinary(*call)
        result, recording = record(ordinary, call, given)
        device = next(tensor for tensor in given if tensor is not None).device
        replay = None if recording is None else prepare(recording, tensors, device)
        known[kind] = _ORDINARY if replay is None else replay
        return result

    return operator
