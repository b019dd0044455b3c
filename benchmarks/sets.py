"""The sets of cases that `python -m benchmarks.operators` measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from benchmarks.cases import Case, has_channels_last
from benchmarks.headline import HEADLINE
from benchmarks.shapes import frozen

OTHER_DTYPES = ("bfloat16", "float16", "float64")

# A quarter of the headline's batch: 12.8 MB in float32, beyond any core's own cache.
_QUARTER = 4

# Heads of attention, ConvNeXt and Swin, and transformers' widths.
_CACHED_ROWS = ((2048, 64), (2048, 96), (1568, 384), (512, 768), (512, 1024))
_CACHED_IMAGES = (8, 256, 14, 14)


def headline() -> Iterator[Case]:
    """The rows by which the kernels are judged."""
    yield from HEADLINE


def networks() -> Iterator[Case]:
    """Every distinct normaliser of the networks with what follows it, each layout, forward and step."""
    for case in _layouts(case for case, _ in frozen()):
        for mode in ("forward", "step"):
            yield replace(case, mode=mode)


def bare() -> Iterator[Case]:
    """The networks' shapes again, without what follows the normaliser."""
    cases = {replace(case, residual=False, activation=None): None for case, _ in frozen()}
    yield from _layouts(cases)


def inference() -> Iterator[Case]:
    """The networks' batch norms with running statistics, and the others without a backward to prepare."""
    for case in _layouts(_largest_of_each()):
        yield replace(case, mode="inference")


def dtypes() -> Iterator[Case]:
    """The headline's rows on a quarter of the batch, in the other dtypes."""
    for case in HEADLINE:
        for dtype in OTHER_DTYPES:
            yield replace(_quarter(case), dtype=dtype)


def threads() -> Iterator[Case]:
    """The headline's rows on a quarter of the batch, by one thread."""
    for case in HEADLINE:
        yield replace(_quarter(case), threads=1)


def cached() -> Iterator[Case]:
    """Tensors that a core's caches hold: what the arithmetic and each row's own costs come to."""
    for rows, length in _CACHED_ROWS:
        row = Case("layer_norm", (rows, length), normalized_shape=(length,))
        for case in (row, replace(row, dtype="bfloat16")):
            for mode in ("inference", "step"):
                yield replace(case, mode=mode)
    for images in (Case("batch_norm", _CACHED_IMAGES), Case("group_norm", _CACHED_IMAGES, groups=32)):
        yield from _layouts([images])


SETS: dict[str, Callable[[], Iterator[Case]]] = {
    "headline": headline,
    "networks": networks,
    "bare": bare,
    "inference": inference,
    "dtypes": dtypes,
    "threads": threads,
    "cached": cached,
}


def _layouts(cases: Iterable[Case]) -> Iterator[Case]:
    for case in cases:
        yield case
        if has_channels_last(case):
            yield replace(case, layout="channels-last")


def _largest_of_each() -> list[Case]:
    """Of each network, operator and what follows it, the largest shape."""
    largest: dict[tuple[object, ...], Case] = {}
    for case, _ in sorted(frozen(), key=lambda item: math.prod(item[0].shape)):
        largest[(case.source, case.operator, case.residual, case.activation)] = case
    return list(largest.values())


def _quarter(case: Case) -> Case:
    return replace(case, shape=(case.shape[0] // _QUARTER, *case.shape[1:]))
