"""The IDX format of MNIST and Fashion-MNIST: unsigned bytes in an array of any number of axes.

    00 00 08 A      two zeros, the type (08 is unsigned byte), the number of axes
    A sizes         unsigned 32-bit, most significant byte first
    the values      one byte each, last axis fastest

References:
    LeCun, Cortes & Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import torch

from normwright.errors import DataError

REMEDY = "it is cut short, half-written or another file; delete it and fetch it again"


def read_idx(path: Path, *, axes: int) -> torch.Tensor:
    """The array that an IDX file holds.

    Args:
        path: the file, plain or compressed (.gz).
        axes: how many axes it must have: 3 for images (N, H, W), 1 for labels (N,).
    Returns:
        uint8, of the shape that the file states.
    Raises:
        DataError: the file cannot be read, is not IDX of that many axes, or holds fewer or more bytes
            than it states.
    """
    content, broken = content_of(path)
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(
            f"{path} must hold at least {start} bytes, its header, but {len(content)} were found{broken}; "
            f"{REMEDY}"
        )
    magic = bytes((0, 0, 8, axes))
    if content[:4] != magic:
        raise DataError(
            f"{path} must begin with the bytes {magic.hex(' ')} (IDX, unsigned bytes, {axes} axes), "
            f"but begins with {content[:4].hex(' ')}; {REMEDY}"
        )
    sizes = struct.unpack(f">{axes}I", content[4:start])
    expected = start + math.prod(sizes)
    if broken or len(content) != expected:
        raise DataError(
            f"{path} must hold {expected:,} bytes ({' × '.join(map(str, sizes))} values and a header), "
            f"but {len(content):,} were found{broken}; {REMEDY}"
        )
    if 0 in sizes:
        raise DataError(f"{path} must hold samples, but states sizes {sizes}; {REMEDY}")
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).reshape(sizes)


def content_of(path: Path) -> tuple[bytearray, str]:
    """All the bytes that can be read, uncompressed, and what broke off the reading (nothing: '')."""
    content = bytearray()
    try:
        with _open(path) as stream:
            # read1, because read drops what it has when it meets the fault.
            while piece := stream.read1(1 << 16):
                content += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        return content, f" ({fault})"
    except OSError as fault:
        raise DataError(f"{path} must be readable, but is not: {fault}; see its permissions") from fault
    return content, ""


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")
