"""Watches a network while it trains: in a plain loop, under Lightning, and under Transformers' Trainer."""

from __future__ import annotations

from normwright.doctor.monitor.monitor import Monitor
from normwright.doctor.monitor.window import Window

__all__ = ["Monitor", "Window"]
