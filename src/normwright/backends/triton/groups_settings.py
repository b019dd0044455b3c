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
# sooner. A backward holds twice as much: with 16 warps for 16384 elements its part of group norm + SiLU
# takes 0.58 of a copy's bandwidth on an H200 in bfloat16, 0.50 with 8 (float32: 0.80, 0.65); without
# activation 0.65 and 0.70, instance norm 0.84 and 0.69.
_PER_WARP = 512
_LONG = 4096
_MOST_WARPS, _MOST_WARPS_BACKWARD = 8, 16


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


# Two programs for each of an H100's 132 processors.
ENOUGH_PROGRAMS = 264

# The longest group that is one tile. In pieces, the backward of groups of 16384 reached 0.63 of a copy's
# bandwidth on an H200 (with SiLU 0.44), as one tile 0.65 (0.58); in float32 0.64 (0.52) and 0.96 (0.80).
_LONGEST_GROUP = 16384

# Elements of a tile of a piece, and its warps. Forward, instance norm of 4×32×64×64×64 on an H200: pieces
# of 8 tiles of 2048 with 4 warps 0.57 of a copy's bandwidth, of 4 tiles of 4096 with 8 warps 0.51
# (bfloat16).
_GROUP_BLOCK, _GROUP_WARPS, _STEPS = 2048, 4, 8
_GROUP_BLOCK_BACKWARD, _GROUP_WARPS_BACKWARD, _STEPS_BACKWARD = 4096, 8, 4
_MOST_PIECES = 1024


def _warps(elements: int, *, backward: bool) -> int:
    per_warp = _PER_WARP * (2 if elements >= _LONG else 1)
    return min(max(elements // per_warp, 1), _MOST_WARPS_BACKWARD if backward else _MOST_WARPS)


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
    if runs * block > _LONGEST_GROUP:
        return None
    groups = max(1, 1024 // (runs * block))
    return GroupTile(groups, runs, block, _warps(groups * runs * block, backward=backward), flat)


@functools.lru_cache(4096)
def group_pieces(channels: int, space: int, *, backward: bool) -> GroupPieces:
    """The pieces of a group of so many channels and elements of a plane."""
    flat = not backward and space < LONG_RUN
    most, warps, many = _GROUP_BLOCK, _GROUP_WARPS, _STEPS
    if backward:
        most, warps, many = _GROUP_BLOCK_BACKWARD, _GROUP_WARPS_BACKWARD, _STEPS_BACKWARD
    wide = most if flat else min(padded(space), most)
    runs = 1 if flat else min(most // wide, padded(channels))
    size = space if backward else channels * space
    block = wide if backward else most
    tiles = -(-size // block)
    steps = max(min(padded(tiles // 16), many), padded(-(-tiles // _MOST_PIECES)))
    return GroupPieces(block, steps, runs, wide, warps, flat=flat)


# The widest block of channels and the least that is sought; the bytes of a tile, 32 to a lane of 4 warps.
# Fractions of a copy's bandwidth on an H200, group norm (32) of 64×128×64×64. In bfloat16, tiles of 4 KB
# reach 0.45 forward and 0.47 backward; of 8 KB, with one program for a block, 0.40 and 0.42; blocks of 64
# channels at best 0.42 and 0.45, of 128 0.26; 8 warps 0.38 and 0.40. In float32 with SiLU, blocks of 32
# channels reach 0.57 and 0.51, of 16 0.52 and 0.48.
_WIDEST, _LEAST = 128, 32
_COLUMN_BYTES, _COLUMN_WARPS = 4096, 4

# Pieces that a sample is cut in where tiles allow it, and elements of a piece at most. Each piece is put
# together again by every program of its sample, which is why a block is narrow, and short pieces cost most:
# group norm above takes a third longer forward with 16 pieces than with 8; instance norm of 4×32×64×64×64
# reaches 0.16 with 512 pieces of 16384 elements, 0.42 with 32 of 262144 (backward 0.50 with 64 of 131072).
_PIECES, _MOST_ELEMENTS = 8, 131072


def _column_width(channels: int, share: int) -> int:
    """The width of a block of channels, for groups of `share`: it begins on a byte of a mask."""
    unit = math.lcm(share, 8)
    if unit > _WIDEST:
        return _WIDEST // 2 if share % _WIDEST and share % (_WIDEST // 2) == 0 else _WIDEST
    least = max(_LEAST, unit)
    widths = [width for width in range(unit, _WIDEST + 1, unit) if width >= least] or [least]
    used = {width: width / power_of_two(width) for width in widths}
    best = max(used.values())
    return min(channels, next(width for width in widths if used[width] == best))


@functools.lru_cache(4096)
def group_columns(channels: int, share: int, space: int, itemsize: int, *, backward: bool) -> GroupColumns:
    """How samples of so many channels, in groups of `share`, and positions are cut."""
    width = _column_width(channels, share)
    rows = max(_COLUMN_BYTES // itemsize // power_of_two(width), 1)
    tiles = -(-space // rows)
    most = max(_MOST_ELEMENTS // (rows * power_of_two(width)), 1)
    steps = min(max(padded(tiles // _PIECES), 1), most)
    return GroupColumns(width, rows, max(steps, padded(-(-tiles // _MOST_PIECES))), _COLUMN_WARPS)
