"""How the parts family is cut and launched, by the shape and the runs of positions alone.

The sizes are those of `channels_settings.py`, whose kernels do as much to as many bytes; of these kernels
themselves nothing has been measured on a GPU yet.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normwright.backends.triton.settings import padded

# Bytes of a tile, of which a backward holds dy, x, the residual and two sums in registers.
_BYTES = 8192

# Bytes of a line of the cache, which a strip has where channels are quickest in memory.
_STRIP = 128

# Shorter pieces than these would not fill a sector of the memory where positions are quickest.
_SHORTEST = 8

# How much worse than the best a length may fill its tiles.
_WASTE = 0.92


class PartsTile(NamedTuple):
    """One launch. See `kernels/parts_walk.py`.

    Args:
        pieces: of a tile, a power of two.
        length: most positions of a piece, a power of two.
        channels: of a tile, a power of two.
        warps: of a program (`num_warps`).
        stages: tiles that a loop has in flight.
    """

    pieces: int
    length: int
    channels: int
    warps: int = 4
    stages: int = 3


def parts_tile(
    runs: NDArray[np.int64], largest: int, channels: int, itemsize: int, *, quickest: bool
) -> PartsTile:
    """The tile of runs of so many positions, which lie in parts of at most `largest` positions.

    Where channels are quickest a strip is a line of the cache, and else one channel; wider where the parts
    are small.
    """
    size = _BYTES // itemsize
    strip = min(padded(channels), _STRIP // itemsize) if quickest else 1
    length = _length(runs, size // strip, 1 if quickest else _SHORTEST)
    positions = min(size // strip, padded(max(largest, length)))
    wide, warps = min(size // positions, padded(channels)), 8 if quickest else 4
    return PartsTile(positions // length, length, wide, warps)


def _length(runs: NDArray[np.int64], most: int, least: int) -> int:
    """The longest that fills little less of its pieces than the one that fills most."""
    lengths = [1 << power for power in range(least.bit_length() - 1, most.bit_length())]
    filled = [int(runs.sum()) / int((-(-runs // length) * length).sum() or 1) for length in lengths]
    return max(length for length, share in zip(lengths, filled, strict=True) if share >= _WASTE * max(filled))


# Two programs fit on each of the 132 multiprocessors of an H100 or H200; more leave less of a last round.
_PROGRAMS, _MANY_PROGRAMS = 264, 1056

# Elements of the ranges that are put together, which every program of a part does; and the fewest tiles that
# are work for a program.
_TABLE, _LEAST_TILES = 4096, 4


def ranges_of(tiles: NDArray[np.int64], strips: int, channels: int) -> NDArray[np.int64]:
    """The ranges of each part, of so many tiles, in each strip of so many channels."""
    programs = _PROGRAMS if strips * len(tiles) <= _PROGRAMS else _MANY_PROGRAMS
    shares = programs * tiles // (strips * max(int(tiles.sum()), 1))
    most = np.minimum(-(-tiles // _LEAST_TILES), max(_TABLE // channels, 1))
    ranges: NDArray[np.int64] = np.minimum(np.maximum(shares, 1), most)
    return ranges
