"""The operators `torch.ops.normwright.*` and the backends that serve them.

PyTorch's dispatcher chooses: a backend registers its kernels for a device, and `eager` serves all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from normwright.backends import schema

# The operators live as long as this object.
_LIBRARY = torch.library.Library(schema.NAMESPACE, "DEF")
schema.register(_LIBRARY)


@dataclass(frozen=True)
class Backend:
    """One backend: which devices it serves, whether it is loaded, and if not, why."""

    name: str
    devices: str
    loaded: bool
    reason: str


def backends() -> tuple[Backend, ...]:
    """Says for each backend whether it is loaded, and if not, why.

    Example:
        >>> [backend.name for backend in backends() if backend.loaded]
        ['eager']
    """
    return (
        Backend("native", "CPU", False, "this version of normwright has no C++ kernels yet"),
        Backend("triton", "CUDA, ROCm", False, "this version of normwright has no Triton kernels yet"),
        Backend("eager", "every device", True, "plain PyTorch; serves whatever no other backend serves"),
    )


__all__ = ["Backend", "backends"]
