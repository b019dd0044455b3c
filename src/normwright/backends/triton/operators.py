"""The operators as the dispatcher calls them: what a kernel serves goes to it, the rest to plain PyTorch.

An empty tensor has nothing to launch, and goes to plain PyTorch silently. Anything else that goes there is
several times slower than it might be: it is said, once for each reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normwright.backends import eager
from normwright.backends.devices import check_devices
from normwright.backends.triton import channels, groups, rows, warn_once
from normwright.backends.triton.interpreter import quietly

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
OLDEST_CAPABILITY = (7, 0)


def refusal(x: Tensor) -> str | None:
    """Why no kernel serves x, or None."""
    if x.dtype not in DTYPES:
        return f"no Triton kernel serves {x.dtype}"
    if x.is_cuda and torch.version.hip is None and _capability(x.device) < OLDEST_CAPABILITY:
        device = torch.cuda.get_device_name(x.device)
        return f"Triton compiles for compute capability 7.0 and later, and {device} is older"
    return None


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _served(kernel: Callable[..., Any]) -> Callable[..., Any]:
    fallback = eager.OPERATORS[kernel.__name__]
    place = 1 if kernel.__name__.endswith("_backward") else 0  # of x

    def operator(*call: Any) -> Any:
        check_devices(call)
        x = call[place]
        reason = refusal(x)
        if reason is not None:
            warn_once(reason)
            return fallback(*call)
        if not x.numel():
            return fallback(*call)
        with quietly():
            return kernel(*call)

    return operator


rows_forward = _served(rows.rows_forward)
rows_forward_masked = _served(rows.rows_forward_masked)
rows_inference = _served(rows.rows_inference)
rows_inference_out = _served(rows.rows_inference_out)
rows_backward = _served(rows.rows_backward)
groups_forward = _served(groups.groups_forward)
groups_forward_masked = _served(groups.groups_forward_masked)
groups_inference = _served(groups.groups_inference)
groups_inference_out = _served(groups.groups_inference_out)
groups_backward = _served(groups.groups_backward)
channels_forward = _served(channels.channels_forward)
channels_forward_masked = _served(channels.channels_forward_masked)
channels_backward = _served(channels.channels_backward)
channel_affine = _served(channels.channel_affine)
channel_affine_out = _served(channels.channel_affine_out)
channel_affine_backward = _served(channels.channel_affine_backward)
channel_moments = _served(channels.channel_moments)
