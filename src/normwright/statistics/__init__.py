"""Population statistics of a network: estimated anew, or moved to a shifted domain."""

from __future__ import annotations

from normwright.statistics.recalibrate import recalibrate
from normwright.statistics.recalibration import LayerChange, Recalibration, RecalibrationReport

__all__ = ["LayerChange", "Recalibration", "RecalibrationReport", "recalibrate"]
