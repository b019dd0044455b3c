"""The launches of the groups family; see `settings.py`.

Nothing here depends on the batch but whether one program or many share a group, which does not change bits.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from normwright.backends.masks import LONG_RUN
from normwright.backends.triton.settings import padded, power_of_two

# Elements of a tile to a warp: 32 lanes of 16, or of 32 where the tile is large, because fewer warps meet
# sooner.
_PER_WARP = 512
_LONG = 4096
_MOST_WARPS = 8


@dataclass(frozen=True)
class GroupTile:
    """A tile of whole groups.

    Args:
        groups: groups of a tile.
        runs: runs of a group, padded to a power of two: planes of a channel each, or 1 where flat.
        block: elements of a run, padded to a power of two.
        warps: of a program.
        flat: whether a run is a whole group.
    """

    groups: int
    runs: int
    block: int
    warps: int
    flat: bool = False


@dataclass(frozen=True)
class GroupPieces:
    """How a group is cut that does not fit in a tile.

    Args:
        block: elements of a tile of the reduction (forward: of the whole group; backward: of a plane).
        steps: tiles of a piece, a power of two.
        runs: planes of a tile where they are not reduced as one.
        wide: elements of such a tile along a plane.
        warps: of a program.
        whole: one program for a group, or many; by the number of groups where None. The bits are the same.
        flat: whether a run is a whole group.
    """

    block: int
    steps: int
    runs: int
    wide: int
    warps: int
    whole: bool | None = None
    flat: bool = False


@dataclass(frozen=True)
class GroupColumns:
    """How channels-last samples are cut.

    Args:
        width: channels of a block: whole groups, or a divisor of a group, or a multiple of 8.
        rows: positions of a tile, a power of two.
        steps: tiles of a piece, a power of two.
        warps: of a program.
        whole: one program for all the pieces of a block, or one for each; by their number where None.
    """

    width: int
    rows: int
    steps: int
    warps: int
    whole: bool | None = None


# Two programs for each of an H100's 132 processors; one suffices where it takes a block of channels.
ENOUGH_PROGRAMS, ENOUGH_BLOCKS = 264, 128

# The longest group that is one tile.
_LONGEST_GROUP, _LONGEST_GROUP_BACKWARD = 16384, 8192

_GROUP_BLOCK = 4096
_MOST_PIECES = 1024


def _warps(elements: int) -> int:
    per_warp = _PER_WARP * (2 if elements >= _LONG else 1)
    return min(max(elements // per_warp, 1), _MOST_WARPS)


def _is_flat(channels: int, space: int) -> bool:
    """Whether a group is taken as one run: where its planes are short or fill a tile badly."""
    if channels == 1:
        return False
    filled = power_of_two(space) * padded(channels)
    return space < LONG_RUN or (space % 8 == 0 and filled >= 2 * power_of_two(channels * space))


@functools.lru_cache(4096)
def group_tile(channels: int, space: int, *, backward: bool) -> GroupTile | None:
    """The tile of whole groups of so many channels and elements of a plane; None where one must be cut."""
    flat = not backward and _is_flat(channels, space)
    runs = 1 if flat else padded(channels)
    block = power_of_two(channels * space) if flat else padded(space) if backward else power_of_two(space)
    if runs * block > (_LONGEST_GROUP_BACKWARD if backward else _LONGEST_GROUP):
        return None
    groups = max(1, 1024 // (runs * block))
    return GroupTile(groups, runs, block, _warps(groups * runs * block), flat)


@functools.lru_cache(4096)
def group_pieces(channels: int, space: int, *, backward: bool) -> GroupPieces:
    """The pieces of a group of so many channels and elements of a plane."""
    flat = not backward and space < LONG_RUN
    wide = _GROUP_BLOCK if flat else min(padded(space), _GROUP_BLOCK)
    runs = 1 if flat else min(_GROUP_BLOCK // wide, padded(channels))
    size = space if backward else channels * space
    block = wide if backward else _GROUP_BLOCK
    tiles = -(-size // block)
    steps = max(min(padded(tiles // 16), 4), padded(-(-tiles // _MOST_PIECES)))
    return GroupPieces(block, steps, runs, wide, 8, flat=flat)


# The widest block of channels, the bytes of a position in it that are read together, and the elements of a
# tile.
_WIDEST, _SEGMENT = 128, 64
_COLUMN_TILE, _COLUMN_TILE_BACKWARD = 4096, 2048

# Pieces that a sample is cut in where tiles allow it, and tiles of a piece at most: each piece is put
# together again by every program of its sample, which is why a block is narrow.
_PIECES, _MOST_STEPS = 8, 64


def _column_width(channels: int, share: int, itemsize: int) -> int:
    """The width of a block of channels, for groups of `share`: it begins on a byte of a mask."""
    unit = math.lcm(share, 8)
    if unit > _WIDEST:
        return _WIDEST // 2 if share % _WIDEST and share % (_WIDEST // 2) == 0 else _WIDEST
    least = max(_SEGMENT // itemsize, unit)
    widths = [width for width in range(unit, _WIDEST + 1, unit) if width >= least] or [least]
    used = {width: width / power_of_two(width) for width in widths}
    best = max(used.values())
    return min(channels, next(width for width in widths if used[width] == best))


@functools.lru_cache(4096)
def group_columns(channels: int, share: int, space: int, itemsize: int, *, backward: bool) -> GroupColumns:
    """How samples of so many channels, in groups of `share`, and positions are cut."""
    width = _column_width(channels, share, itemsize)
    rows = (_COLUMN_TILE_BACKWARD if backward else _COLUMN_TILE) // power_of_two(width)
    tiles = -(-space // rows)
    steps = min(max(padded(tiles // _PIECES), 1), _MOST_STEPS)
    return GroupColumns(width, rows, max(steps, padded(-(-tiles // _MOST_PIECES))), 4)
