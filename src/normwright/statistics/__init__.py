"""Population statistics of a network: estimated anew, or moved to a shifted domain."""

from __future__ import annotations

from normwright.statistics.adapt import adapt
from normwright.statistics.adaptation import Adaptation, AdaptationReport, LayerAdaptation
from normwright.statistics.recalibrate import recalibrate
from normwright.statistics.recalibration import LayerChange, Recalibration, RecalibrationReport
from normwright.statistics.stream import AdaptedStream

__all__ = [
    "Adaptation",
    "AdaptationReport",
    "AdaptedStream",
    "LayerAdaptation",
    "LayerChange",
    "Recalibration",
    "RecalibrationReport",
    "adapt",
    "recalibrate",
]
