"""Which module of a network failed, and on what."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import nn

from normwright.network.calling import tensors_of

_CALL = "_call_impl"  # the frame in which torch.nn.Module runs hooks and forward, on every version


def where_it_failed(error: BaseException) -> str:
    """The innermost module that an exception came out of, and the tensors that it was called with.

    Args:
        error: that was raised, and caught.
    Returns:
        A sentence, or "" where no module was being called.
    Example:
        >>> import torch
        >>> try:
        ...     nn.Sequential(nn.ReLU(), nn.Linear(4, 2))(torch.zeros(3, 5))
        ... except RuntimeError as fault:
        ...     print(where_it_failed(fault))
        it failed in 1, Linear(in_features=4, out_features=2, bias=True), to which came (3, 5) float32
    """
    calls = _calls(error.__traceback__)
    if not calls:
        return ""
    root = calls[0][0]
    module, arguments = calls[-1]
    name = next((name for name, found in root.named_modules() if found is module), "")
    came = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors_of(arguments))
    # a container's own text would be the whole network
    shown = type(module).__name__ if any(True for _ in module.children()) else repr(module)
    return f"it failed in {f'{name}, ' if name else ''}{shown}, to which came {came or 'no tensor'}"


def _calls(place: TracebackType | None) -> list[tuple[nn.Module, Any]]:
    """Every module that was being called, the outermost first, with its arguments."""
    found: list[tuple[nn.Module, Any]] = []
    while place is not None:
        frame, place = place.tb_frame, place.tb_next
        if frame.f_code.co_name != _CALL:
            continue
        names = frame.f_locals
        if isinstance(module := names.get("self"), nn.Module):
            found.append((module, (names.get("args"), names.get("kwargs"))))
    return found
