"""How kernels are launched: one frozen table for each family, by shape alone, each row with what chose it.

Nothing is tuned when normwright is imported or first called. `python -m benchmarks.launch_settings` times the
candidates; what it chose, and the fractions of a device copy's bandwidth, stand beside the rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tile:
    """One launch.

    Args:
        rows: rows of a tile, a power of two.
        block: elements of a row in a tile, a power of two and at least 8.
        warps: of a program (`num_warps`).
        programs: most programs that share what adds up over the batch; each leaves a part.
        stages: tiles that a program which takes several has in flight.
    """

    rows: int
    block: int
    warps: int
    programs: int = 264
    stages: int = 2


def padded(size: int) -> int:
    """The smallest power of two that is at least the size, and at least 1."""
    return 1 << (max(size, 1) - 1).bit_length()


def power_of_two(size: int) -> int:
    """The smallest power of two that is at least the size, and at least 8, a byte of a mask."""
    return max(8, padded(size))


# Elements of a row that fit in the registers of a program, and of a piece where they do not. Backward of
# 2048×16384 in bfloat16 on an H200, with float32 parameters, as fractions of a copy's bandwidth: whole rows
# 51 % (layer norm) and 71 % (RMS norm), pieces 43 % and 47 %.
LONGEST_ROW = 16384
PIECE = Tile(1, 4096, 8, programs=64)
_MOST_PIECES = 65535

# Elements of a tile of short rows. A backward's programs add up the parameters' gradients, so that there are
# few, and each must keep much in flight.
_TILE = 2048
_TILE_BACKWARD = 4096

# Elements of a tile to a warp, 16 to a lane. Twice as many in long rows, whose sums cost less where fewer
# warps must meet. Fractions of a copy's bandwidth on an H200, bfloat16, 8192×4096: layer norm forward 92 %
# with 4 warps (67 % with 8, before), backward 62 % (60 % with 8); 8192×4095 backward 54 % (37 % with 8);
# 2048×16384 forward 76 % with 8 warps (50 % with 16).
_PER_WARP = 512
_LONG = 4096
_MOST_WARPS, _MOST_WARPS_BACKWARD = 8, 16

# Backwards that are not of that rule, measured likewise. Rows of 4096 do best without a second tile in
# flight: 8192×4096 reaches 66 % with layer norm and 75 % with RMS norm (62 % and 72 % with 4 warps and 2
# stages). Where lengths are odd, fewer warps do better: 8192×4095 reaches 58 % and 61 % (53 % and 55 % with
# 2 stages). Rows of 16384 leave room for one program to a processor.
_FULL = Tile(1, 4096, 8, stages=1)
_ODD = Tile(1, 4096, 4, stages=1)
_LONGEST = Tile(1, LONGEST_ROW, 16, programs=132)


@functools.lru_cache(4096)
def rows_tile(length: int, *, backward: bool) -> Tile:
    """The tile of rows of a length; one that is shorter than the row cuts it in pieces."""
    if length > LONGEST_ROW:
        # A grid's second axis, along which the pieces of a row are, has at most so many programs.
        return replace(PIECE, block=max(PIECE.block, power_of_two(-(-length // _MOST_PIECES))))
    block = power_of_two(length)
    if backward and block == _LONGEST.block:
        return _LONGEST
    if backward and block == _FULL.block:
        return _FULL if length == block else _ODD
    rows = max(1, (_TILE_BACKWARD if backward else _TILE) // block)
    per_warp = _PER_WARP * (2 if block >= _LONG else 1)
    most = _MOST_WARPS_BACKWARD if backward else _MOST_WARPS
    return Tile(rows, block, min(max(rows * block // per_warp, 1), most))
