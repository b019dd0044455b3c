"""Errors of ours and of PyTorch's, in ulps, on ordinary and on hostile inputs.

float64 is left out: the reference that errors are measured against is itself computed in float64.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from benchmarks import contenders
from benchmarks.cases import Case, has_channels_last
from benchmarks.hostile import KINDS, SERVES
from benchmarks.inputs import random_inputs, with_x
from benchmarks.markdown import bullets, table
from benchmarks.measure import errors_of
from benchmarks.ulps import Error

_IMAGE = (16, 32, 14, 14)
CASES = (
    Case("batch_norm", _IMAGE),
    Case("instance_norm", _IMAGE),
    Case("group_norm", _IMAGE, groups=8),
    Case("layer_norm", (128, 768), normalized_shape=(768,)),
    Case("rms_norm", (128, 768), normalized_shape=(768,)),
)
RESULTS = ("y", "dx", "dweight", "dbias")

# Two roundings of one exact value differ by this much without either being worse.
WORSE = 0.5


@dataclass(frozen=True)
class Accuracy:
    """Errors of one case on one kind of input, by result, of "ours" and "eager"."""

    case: Case
    kind: str
    errors: dict[str, dict[str, Error]]


def measure_accuracy(cases: list[Case]) -> list[Accuracy]:
    """Computes every case on every kind of input that its dtype can hold."""
    torch.set_num_threads(1)
    found = []
    for case in cases:
        print(f"  {case.label}", file=sys.stderr, flush=True)
        plain = random_inputs(case)
        noise = torch.randn(case.shape, generator=torch.Generator().manual_seed(1))
        rivals = {"ours": contenders.ours(case), "eager": contenders.eager(case)}
        for kind in SERVES[case.dtype]:
            inputs = with_x(case, plain, KINDS[kind](noise, case))
            found.append(Accuracy(case, kind, errors_of(rivals, case, inputs)))
    return found


def accuracy_cases() -> Iterator[Case]:
    """Every normaliser in every layout and dtype."""
    for case in CASES:
        layouts = ("contiguous", "channels-last") if has_channels_last(case) else ("contiguous",)
        for layout in layouts:
            for dtype in SERVES:
                yield replace(case, layout=layout, dtype=dtype)


def accuracy_table(rows: list[Accuracy]) -> str:
    """Median and largest error of each result."""
    rivals = ("ours", "eager")
    head = ("operator", "layout", "dtype", "input", *(f"{r}: {name}" for r in RESULTS for name in rivals))
    return table(head, [(*_place(row), *_figures(row)) for row in rows])


def accuracy_verdict(rows: list[Accuracy]) -> str:
    """Where our largest error is above PyTorch's."""
    compared = [
        (errors["ours"].largest, errors["eager"].largest, f"{result} of {', '.join(_place(row))}")
        for row in rows
        for result, errors in row.errors.items()
    ]
    above = sum(ours > eager for ours, eager, _ in compared)
    worse = [entry for entry in compared if entry[0] > entry[1] + WORSE]
    lines = [
        f"**Largest error above PyTorch's in {above} of {len(compared)} results, "
        f"by more than {WORSE} ulp in {len(worse)}**",
        "",
        bullets(f"{Error.text(ours)} against {Error.text(eager)}: {where}" for ours, eager, where in worse),
    ]
    return "\n".join(lines).rstrip()


def _place(row: Accuracy) -> tuple[str, ...]:
    return (row.case.what, row.case.layout, row.case.dtype, row.kind)


def _figures(row: Accuracy) -> Iterator[str]:
    for result in RESULTS:
        for name in ("ours", "eager"):
            yield str(row.errors[result][name]) if result in row.errors else ""
