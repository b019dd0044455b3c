"""Population statistics of a network: estimated anew, moved to a shifted domain, kept right in training."""

from __future__ import annotations

from normwright.statistics.accumulate import accumulate
from normwright.statistics.adapt import adapt
from normwright.statistics.adaptation import Adaptation, AdaptationReport, LayerAdaptation
from normwright.statistics.count_once import Counting, count_once
from normwright.statistics.recalibrate import recalibrate
from normwright.statistics.recalibration import LayerChange, Recalibration, RecalibrationReport
from normwright.statistics.stream import AdaptedStream

__all__ = [
    "Adaptation",
    "AdaptationReport",
    "AdaptedStream",
    "Counting",
    "LayerAdaptation",
    "LayerChange",
    "Recalibration",
    "RecalibrationReport",
    "accumulate",
    "adapt",
    "count_once",
    "recalibrate",
]
