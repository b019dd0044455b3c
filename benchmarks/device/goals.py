"""The rows by which the kernels are judged on a GPU, and what each is to reach.

From 2^24 elements up: 90 % of the copy bandwidth forward and 85 % forward and backward, counting the least
traffic; batch norm within 15 % of its least traffic; and what is asked beside other implementations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from benchmarks.cases import Case

MODES = ("forward", "step")
LAYOUTS = ("contiguous", "channels-last")
DTYPES = ("bfloat16", "float32")

FORWARD, STEP, BATCH = 0.90, 0.85, 1 / 1.15


@dataclass(frozen=True)
class DeviceGoal:
    """What a row is to reach.

    Args:
        fraction: of the copy bandwidth, at least.
        times: how many times as fast as a contender, by its name, at least.
    """

    fraction: float
    times: MappingProxyType[str, float] = field(default_factory=lambda: MappingProxyType({}))


_FORMULAS = {"layer_norm": ("liger", "quack"), "rms_norm": ("liger", "quack")}
_ROWS = (
    ((8192, 4096), "bfloat16"),
    ((16384, 1024), "float32"),
    ((2048, 16384), "bfloat16"),
    ((8192, 4095), "bfloat16"),
)
_BATCH = (64, 256, 56, 56)
_GROUPS = (64, 128, 64, 64)
_IMAGE = (32, 64, 128, 128)
_VOLUME = (4, 32, 64, 64, 64)


def _rows() -> Iterator[Case]:
    for shape, dtype in _ROWS:
        for operator in _FORMULAS:
            yield Case(operator, shape, normalized_shape=shape[-1:], dtype=dtype)


def _spaces() -> Iterator[Case]:
    yield Case("batch_norm", _BATCH, residual=True, activation="relu")
    yield Case("group_norm", _GROUPS, groups=32, activation="silu")
    yield Case("batch_norm", _BATCH)
    yield Case("group_norm", _GROUPS, groups=32)
    yield Case("instance_norm", _IMAGE)
    yield Case("instance_norm", _VOLUME)


def _cases() -> Iterator[Case]:
    """Every row as a step."""
    yield from _rows()
    for dtype in DTYPES:
        for case in _spaces():
            for layout in reversed(LAYOUTS):
                yield replace(case, layout=layout, dtype=dtype)


def _goal(case: Case) -> DeviceGoal:
    fraction = BATCH if case.operator == "batch_norm" else FORWARD if case.mode == "forward" else STEP
    return DeviceGoal(fraction, MappingProxyType(_times(case)))


def _times(case: Case) -> dict[str, float]:
    if case.operator in _FORMULAS:
        return dict.fromkeys(_FORMULAS[case.operator], 1.0)
    if case.layout == "contiguous":
        return {}
    if case.operator == "batch_norm" and case.residual and case.dtype == "bfloat16":
        return {"eager": 1.5, "compiled": 1.0}
    if case.operator == "group_norm" and case.activation == "silu":
        return {"eager": 3.0}
    return {}


DEVICE_HEADLINE: dict[Case, DeviceGoal] = {
    row: _goal(row) for case in _cases() for row in (replace(case, mode=mode) for mode in MODES)
}

# What is compiled too, the most important first: compiling takes as long as all the rest of a row.
COMPILED: tuple[Case, ...] = (
    Case("batch_norm", _BATCH, residual=True, activation="relu", layout="channels-last", dtype="bfloat16"),
    Case("group_norm", _GROUPS, groups=32, activation="silu", layout="channels-last", dtype="bfloat16"),
    Case("layer_norm", _ROWS[0][0], normalized_shape=(4096,), dtype="bfloat16"),
    Case("rms_norm", _ROWS[0][0], normalized_shape=(4096,), dtype="bfloat16"),
    Case("batch_norm", _BATCH, layout="channels-last", dtype="bfloat16"),
    Case("group_norm", _GROUPS, groups=32, activation="silu", dtype="bfloat16"),
    Case("instance_norm", _IMAGE, dtype="bfloat16"),
    Case("batch_norm", _BATCH, residual=True, activation="relu", dtype="bfloat16"),
)
