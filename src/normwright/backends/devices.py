"""All tensors of a call lie on one device.

PyTorch's dispatcher does not ask this of an operator of a library: it goes to the kernel of one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


# The place among the arguments of what is on the CPU wherever the others are: an operator's spans.
_ON_CPU = {"parts_forward": 4, "parts_backward": 6}


def check_devices_of(operator: str, call: Sequence[Any]) -> None:
    """The same of an operator's arguments, but for those that are on the CPU wherever the others are."""
    apart = _ON_CPU.get(operator)
    check_devices(call if apart is None else (*call[:apart], *call[apart + 1 :]))
