"""The table by which the programs of the parts family find their positions. See `kernels/parts_walk.py`.

Spans come in any order and of any length. Sorted and joined they are runs, with what lies between them as
runs of no part; cut where a sample ends (if positions are quickest in memory) and at a greatest length they
are pieces; so many pieces are a tile, and consecutive tiles of a part a range. So ghost batch norm's samples
in a row, split batch norm's in turn and a mask's beginnings of sequences are one kernel's work, and a piece
of the table stands for many positions wherever these lie together.

The other way would be a table of the spans themselves, in which each position of a tile seeks its own: a
smaller table, but a search in every tile, and no compiler can then tell that positions lie together, which it
must know to load 16 bytes at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from normwright.backends.devices import is_captured
from normwright.backends.masks import channels_order
from normwright.backends.parts import in_order
from normwright.backends.triton.last_made import LastMade
from normwright.backends.triton.launch import cdiv
from normwright.backends.triton.parts_settings import PartsTile, parts_tile, ranges_of
from normwright.backends.triton.settings import power_of_two
from normwright.errors import OptionError

Numbers = NDArray[np.int64]


class Cut(NamedTuple):
    """How the positions are cut.

    Args:
        tile: of the launches.
        pieces: of the table.
        ranges: of the parts, and of no part.
        most: ranges of one part, at the most; a power of two.
        unit: of where a piece begins and of its length; 1 where channels are quickest.
    """

    tile: PartsTile
    pieces: int
    ranges: tuple[int, int]
    most: int
    unit: int


class Plan(NamedTuple):
    """The table on the device, and how it cuts."""

    table: Tensor
    cut: Cut


class _Runs(NamedTuple):
    """Positions that follow each other: of each run its part, the first and how many."""

    part: Numbers
    first: Numbers
    length: Numbers


# A plan is some 16 bytes for each piece; a network has few shapes, and each step's mask a plan of its own.
# Where a million samples have domains in no order, each is a piece: of such plans, a few are kept.
_KEPT = LastMade[Plan](most=32, size=lambda plan: plan.table.nbytes, most_bytes=2**26)

# Kernels are compiled for a unit, as for the rest of a cut: what masks differ in by chance is left out of it.
_LEAST_UNIT = 4


def plan_of(spans: Tensor, parts: int, x: Tensor) -> Plan:
    """The plan of spans (S, 3) of x; kept for the next call with the same."""
    quickest = channels_order(x).axes[-1] == 1
    sizes = (x.shape[0], x.shape[1], math.prod(x.shape[2:]))
    spans = spans.cpu()
    settings = (parts, *sizes, quickest, x.element_size(), x.device)
    # A digest stands for the rows, which may be as many as the positions.
    key = (hashlib.blake2b(spans.numpy().tobytes()).digest(), *settings)
    plan = _held(key) if is_captured(x) else _KEPT.get(key, lambda: _plan(spans, *settings))
    if x.is_cuda:  # a plan that is forgotten is not overwritten while a kernel of this stream reads it
        plan.table.record_stream(torch.cuda.current_stream(x.device))
    return plan


def _held(key: Hashable) -> Plan:
    """A plan of an earlier call, kept for good: a graph reads its table at each replay, and asks for none.

    Memory of the graph's own would not do. What fills it is a copy, which the graph repeats, and of which it
    then reads the source.
    """
    plan = _KEPT.hold(key)
    if plan is None:
        raise OptionError(
            "the parts of a batch must have been normalised once before a CUDA graph is captured of it, but "
            "these are new, and where they lie cannot be brought to the device meanwhile: make the same "
            "call, forward and backward, before the capture"
        )
    return plan


def _plan(
    spans: Tensor,
    parts: int,
    samples: int,
    channels: int,
    space: int,
    quickest: bool,
    itemsize: int,
    device: torch.device,
) -> Plan:
    positions = samples * space
    runs = _runs(in_order(spans, parts, positions).numpy(), parts, positions)
    if not quickest:
        runs = _cut(runs, _samples_of(runs, space), space)
    largest = int(np.bincount(runs.part, runs.length, parts + 1)[:parts].max(initial=1))
    tile = parts_tile(runs.length, largest, channels, itemsize, quickest=quickest)
    pieces = _cut(runs, runs.first, tile.length)
    at, unit = pieces.first, 1
    if not quickest:
        sample, within = np.divmod(pieces.first, space)
        at = sample * channels * space + within
        unit = int(np.gcd.reduce(np.concatenate([[16, space], within, pieces.length])))
        unit = unit if unit >= _LEAST_UNIT else 1
    return _laid_out(pieces, at, unit, parts, tile, cdiv(channels, tile.channels), device)


def _runs(spans: Numbers, parts: int, positions: int) -> _Runs:
    """Spans in order by their parts, joined where one follows another; those of no part come last."""
    part, first, length = spans.T
    end = first + length
    before, after = np.concatenate([[0], end]), np.concatenate([first, [positions]])
    gaps = after > before
    part = np.concatenate([part, np.full(int(gaps.sum()), parts)])
    first, end = np.concatenate([first, before[gaps]]), np.concatenate([end, after[gaps]])
    order = np.lexsort((first, part))
    part, first, end = part[order], first[order], end[order]
    begins = np.flatnonzero(np.concatenate([[True], (part[1:] != part[:-1]) | (first[1:] != end[:-1])]))
    last = np.concatenate([begins[1:], [len(part)]]) - 1
    return _Runs(part[begins], first[begins], end[last] - first[begins])


def _samples_of(runs: _Runs, space: int) -> Numbers:
    """The first position of the sample that each run begins in."""
    return runs.first // space * space


def _cut(runs: _Runs, origin: Numbers, length: int) -> _Runs:
    """The runs, cut at so many positions from each origin, and twice as many, and so on."""
    end = runs.first + runs.length
    count = -(-(end - origin) // length)
    which = np.arange(len(count)).repeat(count)
    first = origin[which] + length * (np.arange(len(which)) - (count.cumsum() - count)[which])
    begin = np.maximum(first, runs.first[which])
    return _Runs(runs.part[which], begin, np.minimum(first + length, end[which]) - begin)


def _laid_out(
    pieces: _Runs, at: Numbers, unit: int, parts: int, tile: PartsTile, strips: int, device: torch.device
) -> Plan:
    """The pieces in tiles, these in ranges. A part begins with a tile, and has one even if it is empty."""
    count = np.bincount(pieces.part, minlength=parts + 1)
    tiles = -(-count // tile.pieces)
    tiles[:parts] = np.maximum(tiles[:parts], 1)
    first_tile = tiles.cumsum() - tiles
    slot = np.arange(len(pieces.part)) + (first_tile * tile.pieces - (count.cumsum() - count))[pieces.part]
    begins, lengths = np.zeros((2, int(tiles.sum()) * tile.pieces), np.int64)
    begins[slot], lengths[slot] = at // unit, pieces.length

    ranges = ranges_of(tiles, strips, tile.channels)
    part = np.arange(parts + 1).repeat(ranges)
    first_range = ranges.cumsum() - ranges
    number = np.arange(len(part)) - first_range[part]
    first = first_tile[part] + number * tiles[part] // ranges[part]
    last = first_tile[part] + (number + 1) * tiles[part] // ranges[part]
    seen = np.concatenate([[0], lengths.cumsum()])
    here = seen[last * tile.pieces] - seen[first * tile.pieces]
    whole = np.bincount(pieces.part, pieces.length, parts + 1).astype(np.int64)[part]
    columns: list[Any] = [part, first, last, first_range[part], (first_range + ranges)[part], here, whole]
    of_none = part == parts
    for column, value in ((0, -1), (3, 0), (4, 0)):
        columns[column] = np.where(of_none, value, columns[column])
    table = np.concatenate([begins, lengths // unit, np.stack(columns, 1).ravel()])
    of_parts = ranges[:parts]
    numbers = (int(of_parts.sum()), int(ranges[parts]))
    cut = Cut(tile, len(begins), numbers, power_of_two(int(of_parts.max(initial=1))), unit)
    return Plan(torch.from_numpy(table).to(device), cut)
