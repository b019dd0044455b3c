"""Where the tensors of a call lie, and whether what is done there is being captured.

That they lie on one device PyTorch's dispatcher does not ask of an operator of a library: it goes to the
kernel of one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normwright.errors import DeviceError


def check_devices(call: Sequence[Any]) -> None:
    """Raises a DeviceError where the tensors among the arguments lie on different devices."""
    devices = {argument.device for argument in call if isinstance(argument, Tensor)}
    if len(devices) > 1:
        found = ", ".join(sorted(map(str, devices)))
        raise DeviceError(
            f"Expected all tensors to be on the same device, but found at least two devices, {found}: move "
            "the normaliser and its inputs to one device with .to(device)"
        )


def is_captured(x: Tensor) -> bool:
    """Whether what is launched on x goes to a CUDA graph that is being captured."""
    if not x.is_cuda:
        return False
    with torch.cuda.device(x.device):
        return torch.cuda.is_current_stream_capturing()
