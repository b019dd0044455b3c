"""Results as rows: plain numbers as JSON, arrays as little-endian blobs. No pickle: reading runs no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from normwright.lab.run import LayerTrace, RunResult

Row = tuple[str, str, bytes]
"""dtype, shape and data of an array."""

_ARRAYS = ("loss", "evaluation_steps", "validation")
_TRACE_ARRAYS = ("steps", "input", "output", "gradient", "update")


def array_row(array: npt.ArrayLike) -> Row:
    """The row of an array of numbers.

    Raises:
        TypeError: the array holds something else than numbers.
    """
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"a result's array must hold numbers, but holds {values.dtype}")
    little = values.dtype.newbyteorder("<")
    return little.str, json.dumps(values.shape), values.astype(little).tobytes(order="C")


def array_from_row(row: Row) -> npt.NDArray[Any]:
    """The array that `array_row` wrote, in the machine's own byte order; writable."""
    dtype, shape, data = np.dtype(row[0]), tuple(json.loads(row[1])), row[2]
    array: npt.NDArray[Any] = np.ndarray(shape, dtype, buffer=data)
    return array.astype(dtype.newbyteorder("="))


def result_rows(result: RunResult) -> tuple[str, dict[str, Row]]:
    """The plain fields of a result as JSON, and its arrays by name."""
    fields = {
        "diverged": bool(result.diverged),
        # Python's JSON keeps NaN, which a run that diverged in its first step may have as its time.
        "milliseconds": float(result.milliseconds),
        "clock": result.clock,
        "peak_bytes": int(result.peak_bytes),
        "places": int(result.places),
        "left_out": int(result.left_out),
        "trace_places": list(result.trace.places),
        "trace_layers": list(result.trace.layers),
    }
    arrays = {name: array_row(getattr(result, name)) for name in _ARRAYS}
    arrays |= {f"trace.{name}": array_row(getattr(result.trace, name)) for name in _TRACE_ARRAYS}
    return json.dumps(fields), arrays


def result_from_rows(text: str, rows: Mapping[str, Row]) -> RunResult:
    """The result that `result_rows` wrote."""
    fields: dict[str, Any] = json.loads(text)
    arrays = {name: array_from_row(row) for name, row in rows.items()}
    trace = LayerTrace(
        steps=arrays["trace.steps"],
        places=tuple(fields["trace_places"]),
        input=arrays["trace.input"],
        output=arrays["trace.output"],
        layers=tuple(fields["trace_layers"]),
        gradient=arrays["trace.gradient"],
        update=arrays["trace.update"],
    )
    return RunResult(
        diverged=fields["diverged"],
        loss=arrays["loss"],
        evaluation_steps=arrays["evaluation_steps"],
        validation=arrays["validation"],
        milliseconds=fields["milliseconds"],
        peak_bytes=fields["peak_bytes"],
        places=fields["places"],
        left_out=fields["left_out"],
        trace=trace,
        clock=fields.get("clock", "passed"),
    )
