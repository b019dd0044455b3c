"""How the channels family is cut and launched: by shape alone, so that every device gives the same bits."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from normwright.backends.masks import LONG_RUN
from normwright.backends.triton.settings import padded, power_of_two


@dataclass(frozen=True)
class ChannelsTile:
    """One launch. See `kernels/channels_walk.py`.

    Args:
        channels: of a strip: 1, or a multiple of 8.
        rows: of a tile, a power of two.
        block: columns of a tile, a power of two and at least 8.
        ranges: that the tiles of a strip are cut in, a program each.
        warps: of a program (`num_warps`).
        stages: tiles that a loop has in flight.
    """

    channels: int
    rows: int
    block: int
    ranges: int
    warps: int = 8
    stages: int = 3


# Two programs of 8 warps and at most 128 registers a thread fit on each of the 132 multiprocessors of an H100
# or H200. Where there are more strips than these, more programs leave less of a last round.
_PROGRAMS, _MANY_PROGRAMS = 264, 1056

# Bytes of a tile, twice as many where the channels are quickest. Half of it where its elements would not
# fit in the registers: in a backward of a short space, or one that takes the activation's derivative. On an
# H200, in bfloat16, 64×256×56×56 channels-last, tiles of 64 channels by 128 rows reached 0.76 forward and
# 0.95 backward of a copy's bandwidth, tiles of 32 by 128 0.73 and 0.82; contiguous, 4 warps reached 0.73
# and 0.95, 8 warps 0.67 and 0.92.
_TILE = 8192
_WARPS, _WARPS_OF_PLANES = 8, 4

# Fewer tiles than this are no work for a program.
_LEAST_TILES = 4

# Every program puts the ranges of its strip together. Where the channels are quickest, that costs
# programs·(width of a strip)²/channels: a strip is a line of the cache, and programs are few where channels
# are, all as far as the table of the ranges allows.
_STRIP = 128
_FEW_STRIPS = 4
_TABLE = 4096

# With the channels quickest and in half precision, what keeps enough bytes on their way differs. Fractions of
# the least traffic on an H200, bfloat16, batches of 256 as in ResNet-50, before and after each choice:
# forward, 4 stages for 3: 256×56² 0.84, 0.88; 512×28² 0.80, 0.83; 256×14² 0.66, 0.69; 2048×7² 0.69, 0.71;
# forward, one strip alone, ranges as many as multiprocessors, where each is long enough to pay for the larger
# table (256×14², whose are not, 0.66, 0.39): 64×56² 0.58, 0.68;
# backward with derivatives, few strips, twice the ranges: 64×56² 0.57, 0.83; 256×14² 0.79, 0.91;
# backward without, many strips, half the rows and 4 stages: 512×28² 0.84, 0.88; 2048×7² 0.78, 0.86 (few
# strips, 256×56²: 0.86, 0.69).
_DEEP_STAGES = 4
_LONG_RANGE = 32

_WIDEST = 2048


@functools.lru_cache(4096)
def channels_tile(
    rows: int, channels: int, space: int, itemsize: int, *, backward: bool = False, derives: bool = False
) -> ChannelsTile:
    """The tile of a dense (rows, channels·space) matrix. `derives`: a backward that computes derivatives."""
    size = _TILE // itemsize
    if derives or (backward and 1 < space < LONG_RUN):
        size //= 2
    programs, warps = _PROGRAMS, _WARPS
    if space >= LONG_RUN:
        taken, block, warps = 1, _chunk(space), _WARPS_OF_PLANES
    elif space == 1:
        return _columns_tile(rows, channels, itemsize, backward=backward, derives=derives)
    else:
        taken = _short_strip(channels, space)
        block = power_of_two(taken * space)
    height = min(max(size // block, 1), padded(rows))
    tiles = -(-rows // height) * (-(-space // block) if taken == 1 else 1)
    table = _TABLE // (1 if taken == 1 else power_of_two(taken))
    return ChannelsTile(taken, height, block, _ranges(channels, taken, tiles, programs, table), warps=warps)


def _columns_tile(rows: int, channels: int, itemsize: int, *, backward: bool, derives: bool) -> ChannelsTile:
    """`channels_tile` where channels are quickest in memory, or there is no space."""
    block = min(power_of_two(channels), _STRIP // itemsize)
    size = 2 * _TILE // itemsize // (2 if derives else 1)
    few, half = channels <= _FEW_STRIPS * block, itemsize == 2
    programs, table = _PROGRAMS // (2 if few else 1), _TABLE // block
    stages = ChannelsTile.stages
    if half and not backward:
        stages = _DEEP_STAGES
        if channels <= block and rows * block >= _LONG_RANGE * 2 * table * size:
            table *= 2
    elif half and derives and few:
        programs, table = _PROGRAMS, 2 * table
    elif half and not derives and not few:
        size, stages = size // 2, _DEEP_STAGES
    height = min(max(size // block, 1), padded(rows))
    ranges = _ranges(channels, block, -(-rows // height), programs, table)
    return ChannelsTile(block, height, block, ranges, warps=_WARPS, stages=stages)


def _ranges(channels: int, taken: int, tiles: int, programs: int, table: int) -> int:
    """The ranges of each strip, so that there are about as many programs."""
    strips = -(-channels // taken)
    ranges = (programs if strips <= programs else _MANY_PROGRAMS) // strips
    return max(1, min(ranges, table, -(-tiles // _LEAST_TILES)))


def _chunk(space: int) -> int:
    """The longest chunk that wastes little more than the one that wastes least."""
    chunks = [1 << exponent for exponent in range(6, _WIDEST.bit_length())]
    used = [space / (-(-space // chunk) * chunk) for chunk in chunks]
    return max(chunk for chunk, share in zip(chunks, used, strict=True) if share > 0.92 * max(used))


def _short_strip(channels: int, space: int) -> int:
    """The channels, a multiple of 8, that fill a block best."""
    most = min(_WIDEST // space, -(-channels // 8) * 8)
    candidates = range(8, max(most, 8) + 1, 8)
    return max(candidates, key=lambda taken: (taken * space / power_of_two(taken * space), taken))
