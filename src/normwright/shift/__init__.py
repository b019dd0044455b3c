"""The two-sample test: whether two data sets come from one distribution, what differs, and in which layer."""

from __future__ import annotations

from normwright.shift.report import Feature, LayerShift, LeftOut, NetworkShift, Recovery, ShiftReport

__all__ = ["Feature", "LayerShift", "LeftOut", "NetworkShift", "Recovery", "ShiftReport"]
