"""Which GPUs the kernels serve: those that Triton compiles for, where it can launch what it compiled."""

from __future__ import annotations

import functools
from subprocess import CalledProcessError

import torch
from torch import Tensor
from triton.runtime import driver

OLDEST_CAPABILITY = (7, 0)

# Of AMD's before RDNA, which is gfx10 and later. Triton's compiler stops at the others with a page of code.
CDNA = ("gfx908", "gfx90a", "gfx942", "gfx950")


def refusal(x: Tensor) -> str | None:
    """Why no kernel serves x, or None."""
    return refusal_of(x.device) if x.is_cuda else None


@functools.cache
def refusal_of(device: torch.device) -> str | None:
    """Why no kernel serves a GPU, or None."""
    return _too_old(device) or _unlaunchable()


def _too_old(device: torch.device) -> str | None:
    name = torch.cuda.get_device_name(device)
    if torch.version.hip is None:
        if torch.cuda.get_device_capability(device) >= OLDEST_CAPABILITY:
            return None
        return f"Triton compiles for compute capability 7.0 and later, and {name} is older"
    architecture = torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    if architecture in CDNA or int(architecture[3:-2]) >= 10:
        return None
    return f"Triton compiles for {', '.join(CDNA)} and RDNA (gfx10 and later), and {name} is {architecture}"


def _unlaunchable() -> str | None:
    """On first use Triton builds what launches its kernels, and keeps it on disk."""
    try:
        driver.active.get_current_device()
    except (RuntimeError, OSError, AssertionError, ImportError, CalledProcessError) as error:
        return f"Triton needs a C compiler and Python's headers on first use, and could not launch: {error}"
    return None
