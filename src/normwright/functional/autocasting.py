"""Autocast, which does not know every device."""

from __future__ import annotations

import contextlib

import torch


def is_autocast(device: torch.device) -> bool:
    """Whether autocast is on for a device; never for "meta", of which PyTorch refuses to be asked."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Autocast would round what is computed in here to half precision."""
    if not is_autocast(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
