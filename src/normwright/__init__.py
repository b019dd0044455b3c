"""The normalization workbench for PyTorch.

import normwright as nw
nw.nn, nw.functional, nw.reference    layers, functions, and the mathematics in NumPy
nw.accelerate(network)                the same network with fused normalisers
nw.convert(network, to=...)            other normalisers in their place, and the way back
nw.freeze(network)                    hold its running statistics where they are; nw.unfreeze lets them go
nw.compare(network, data, ...)        train one network under every normaliser, and say which wins
nw.statistics                         running statistics in training: accumulate, count_once
nw.backends()                         which kernels are loaded, and if not, why
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from normwright import functional, nn
from normwright.backends import backends

if TYPE_CHECKING:
    from normwright import reference, statistics
    from normwright.network.acceleration.accelerate import accelerate
    from normwright.network.conversion.convert import convert
    from normwright.network.freezing import freeze, unfreeze
    from normwright.report.comparison import compare

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "accelerate",
    "backends",
    "compare",
    "convert",
    "freeze",
    "functional",
    "nn",
    "reference",
    "statistics",
    "unfreeze",
]

# What a training script seldom needs is imported when it is first asked for.
_LAZY = {
    "accelerate": ("normwright.network.acceleration.accelerate", "accelerate"),
    "compare": ("normwright.report.comparison", "compare"),
    "convert": ("normwright.network.conversion.convert", "convert"),
    "freeze": ("normwright.network.freezing", "freeze"),
    "reference": ("normwright.reference", None),
    "statistics": ("normwright.statistics", None),
    "unfreeze": ("normwright.network.freezing", "unfreeze"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'normwright' has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    return module if attribute is None else getattr(module, attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
