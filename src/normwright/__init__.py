"""The normalization workbench for PyTorch.

import normwright as nw
nw.nn, nw.functional, nw.reference    layers, functions, and the mathematics in NumPy
nw.accelerate(network)                the same network with fused normalisers
nw.convert(network, to=...)           other normalisers in their place, and the way back
nw.fold(network, example)             the same network with its batch norms folded into other layers
nw.diagnose(network, batches, loss)   what is wrong with its normalisation, with evidence and a fix
nw.Monitor(network, optimiser)        watches its normalisation while it trains
nw.freeze(network)                    hold its running statistics where they are; nw.unfreeze lets them go
nw.compare(network, data, ...)        train one network under every normaliser, and say which wins
nw.adapt(network, batches)            statistics moved to a shifted domain, undoable
nw.recalibrate(network, batches)      exact population statistics, undoable
nw.shift_test(reference, current)     whether two data sets come from one distribution, and what differs
nw.statistics                         running statistics in training: accumulate, count_once
nw.run_claims(numbers)                re-runs claims of the literature, and judges each by a written rule
nw.find_batch_size(network, data)     where samples per second level off, and the noise of moments
nw.lr_range_test(network, data, ...)  the usable learning rates, with normalisers and without
nw.backends()                         which kernels are loaded, and if not, why
"""

from __future__ import annotations

import importlib
import random
from typing import TYPE_CHECKING, Any

from normwright import functional, nn
from normwright.backends import backends

if TYPE_CHECKING:
    from normwright import reference, statistics
    from normwright.doctor.diagnose import diagnose
    from normwright.doctor.monitor.monitor import Monitor
    from normwright.lab.batch_size.find import find_batch_size
    from normwright.lab.lr_range.range_test import lr_range_test
    from normwright.lab.shifted import shift_test
    from normwright.network.acceleration.accelerate import accelerate
    from normwright.network.conversion.convert import convert
    from normwright.network.folding.fold import fold
    from normwright.network.freezing import freeze, unfreeze
    from normwright.report.claims_book import run_claims
    from normwright.report.comparison import compare
    from normwright.statistics.adapt import adapt
    from normwright.statistics.recalibrate import recalibrate
    from normwright.statistics.stream import AdaptedStream

__version__ = "0.1.0"

__all__ = [
    "AdaptedStream",
    "Monitor",
    "__version__",
    "accelerate",
    "adapt",
    "backends",
    "compare",
    "convert",
    "diagnose",
    "find_batch_size",
    "fold",
    "freeze",
    "functional",
    "lr_range_test",
    "nn",
    "recalibrate",
    "reference",
    "run_claims",
    "shift_test",
    "statistics",
    "unfreeze",
]

# What a training script seldom needs is imported when it is first asked for.
_LAZY = {
    "AdaptedStream": ("normwright.statistics.stream", "AdaptedStream"),
    "Monitor": ("normwright.doctor.monitor.monitor", "Monitor"),
    "accelerate": ("normwright.network.acceleration.accelerate", "accelerate"),
    "adapt": ("normwright.statistics.adapt", "adapt"),
    "compare": ("normwright.report.comparison", "compare"),
    "convert": ("normwright.network.conversion.convert", "convert"),
    "diagnose": ("normwright.doctor.diagnose", "diagnose"),
    "find_batch_size": ("normwright.lab.batch_size.find", "find_batch_size"),
    "fold": ("normwright.network.folding.fold", "fold"),
    "freeze": ("normwright.network.freezing", "freeze"),
    "lr_range_test": ("normwright.lab.lr_range.range_test", "lr_range_test"),
    "recalibrate": ("normwright.statistics.recalibrate", "recalibrate"),
    "reference": ("normwright.reference", None),
    "run_claims": ("normwright.report.claims_book", "run_claims"),
    "shift_test": ("normwright.lab.shifted", "shift_test"),
    "statistics": ("normwright.statistics", None),
    "unfreeze": ("normwright.network.freezing", "unfreeze"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'normwright' has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    # As it is imported, rich draws from Python's generator, and scikit-learn imports it.
    drawn = random.getstate()
    module = importlib.import_module(module_name)
    random.setstate(drawn)
    return module if attribute is None else getattr(module, attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
