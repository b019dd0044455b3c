"""The evidence in short, as plain values: what a machine, or a page, reads of it."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import SkipError

LONGEST = 32  # numbers that stand as they are; one for each channel of a wide layer would hide all else


def in_short(evidence: Evidence) -> dict[str, Any]:
    """Every part of the evidence; one that could not be gathered is {"missing": why}.

    Numbers have five significant digits, and a long row of numbers is told by its count, least, median and
    greatest.
    """
    return {part.name: _part(evidence, part.name) for part in dataclasses.fields(evidence)}


def finite_json(record: Any) -> str:
    """Plain values as JSON, which has no NaN and no infinity: they become null."""
    finite = json.loads(json.dumps(record), parse_constant=lambda name: None)
    return json.dumps(finite, indent=2, allow_nan=False)


def _part(evidence: Evidence, name: str) -> Any:
    try:
        return _plain(getattr(evidence, name))
    except SkipError as skip:
        return {"missing": str(skip)}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if value is None or isinstance(value, str | bool | int):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: _plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        if len(value) > LONGEST and all(isinstance(item, int | float) for item in value):
            return _row_in_short(value)
        return [_plain(item) for item in value]
    return str(value)


def _row_in_short(numbers: Sequence[float]) -> dict[str, Any]:
    finite = [number for number in numbers if math.isfinite(number)]
    short: dict[str, Any] = {"count": len(numbers), "not_finite": len(numbers) - len(finite)}
    if finite:
        short |= {
            "least": _plain(min(finite)),
            "median": _plain(statistics.median(finite)),
            "greatest": _plain(max(finite)),
        }
    return short
