"""The operators `torch.ops.normwright.*` and the backends that serve them.

PyTorch's dispatcher chooses: a backend registers its kernels for a device, and `eager` serves all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from normwright.backends import native, schema, triton

# The operators live as long as this object.
_LIBRARY = torch.library.Library(schema.NAMESPACE, "DEF")
schema.register(_LIBRARY)
_TRITON = triton.load(_LIBRARY, schema.NAMES)
_NATIVE = (
    native.Native(False, "Triton's interpreter takes its place")
    if triton.interprets() and _TRITON.loaded
    else native.load()
)


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
        >>> [backend.name for backend in backends()]
        ['native', 'triton', 'eager']
    """
    return (
        Backend("native", "CPU", *_NATIVE),
        Backend("triton", "CPU" if triton.interprets() else "CUDA, ROCm", *triton.status(_TRITON)),
        Backend("eager", "every device", True, "plain PyTorch; serves whatever no other backend serves"),
    )


__all__ = ["Backend", "backends"]
