"""Turns a mode of PyTorch's functions on and off between a user's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode


@contextlib.contextmanager
def beneath(mode: TorchFunctionMode) -> Iterator[None]:
    """The mode is on, below all others but the default device.

    PyTorch's own way is a stack: what ends takes off the topmost mode, whichever that is. This one may begin
    or end inside a `with torch.device(...)` that goes on, and would leave it on for good, or be left on.
    """
    others = _get_current_function_mode_stack()
    # `torch.set_default_device` keeps its own at the bottom, and insists on it.
    kept = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    place = int(bool(others) and others[0] is kept)
    _stack([*others[:place], mode, *others[place:]])
    try:
        yield
    finally:
        _stack([other for other in _get_current_function_mode_stack() if other is not mode])


def _stack(modes: list[TorchFunctionMode]) -> None:
    """Has these on, and no others; the first is the lowest."""
    for _ in _get_current_function_mode_stack():
        _pop_mode()
    for mode in modes:
        _push_mode(mode)
