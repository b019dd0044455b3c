"""The device that a command runs on."""

from __future__ import annotations

import torch

from normwright.errors import OptionError


def device_of(device: str) -> str:
    """The device that is meant.

    Raises:
        OptionError: it is no device, or is not there.
    Example:
        >>> device_of("cpu")
        'cpu'
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise OptionError(f"device must be auto, cpu or cuda, but is {device!r}") from error
    if kind not in ("cpu", "cuda"):
        raise OptionError(f"device must be auto, cpu or cuda, but is {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise OptionError(f"device {device} needs a GPU that PyTorch can use, but there is none: take cpu")
    return device
