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
