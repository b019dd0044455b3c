"""The normalization workbench for PyTorch.

import normwright as nw
nw.nn, nw.functional, nw.reference    layers, functions, and the mathematics in NumPy
nw.accelerate(network)                the same network with fused normalisers
nw.convert(network, to=...)           other normalisers in their place, and the way back
nw.fold(network, example)             the same network with its batch norms folded into other layers
nw.diagnose(network, batches, loss)   what is wrong with its normalisation, with evidence and a fix
nw.freeze(network)                    hold its running statistics where they are; nw.unfreeze lets them go
nw.compare(network, data, ...)        train one network under every normaliser, and say which wins
nw.adapt(network, batches)            statistics moved to a shifted domain, undoable
nw.recalibrate(network, batches)      exact population statistics, undoable
nw.shift_test(reference, current)     whether two data sets come from one distribution, and what differs
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
    from normwright.doctor.diagnose import diagnose
    from normwright.lab.shifted import shift_test
    from normwright.network.acceleration.accelerate import accelerate
    from normwright.network.conversion.convert import convert
    from normwright.network.folding.fold import fold
    from normwright.network.freezing import freeze, unfreeze
    from normwright.report.comparison import compare
    from normwright.statistics.adapt import adapt
    from normwright.statistics.recalibrate import recalibrate
    from normwright.statistics.stream import AdaptedStream

__version__ = "0.1.0"

__all__ = [
    "AdaptedStream",
    "__version__",
    "accelerate",
    "adapt",
    "backends",
    "compare",
    "convert",
    "diagnose",
    "fold",
    "freeze",
    "functional",
    "nn",
    "recalibrate",
    "reference",
    "shift_test",
    "statistics",
    "unfreeze",
]

# What a training script seldom needs is imported when it is first asked for.
_LAZY = {
    "AdaptedStream": ("normwright.statistics.stream", "AdaptedStream"),
    "accelerate": ("normwright.network.acceleration.accelerate", "accelerate"),
    "adapt": ("normwright.statistics.adapt", "adapt"),
    "compare": ("normwright.report.comparison", "compare"),
    "convert": ("normwright.network.conversion.convert", "convert"),
    "diagnose": ("normwright.doctor.diagnose", "diagnose"),
    "fold": ("normwright.network.folding.fold", "fold"),
    "freeze": ("normwright.network.freezing", "freeze"),
    "recalibrate": ("normwright.statistics.recalibrate", "recalibrate"),
    "reference": ("normwright.reference", None),
    "shift_test": ("normwright.lab.shifted", "shift_test"),
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
