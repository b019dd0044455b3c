"""The least memory traffic of a case on a GPU, and what fraction of the copy bandwidth a time comes to."""

from __future__ import annotations

import math

from benchmarks.cases import Case
from benchmarks.least import least


def least_copies(case: Case) -> float:
    """Copies, each one read and one write of x, that the memory traffic allows.

    As `benchmarks.least` counts them. A row, or a group of one sample, is read again from the second cache at
    worst; but a channel of a batch is spread over a tensor that no cache holds, in either layout, so that
    batch norm reads its inputs twice.

    Example:
        >>> least_copies(Case("batch_norm", (8, 4, 5, 5))), least_copies(Case("instance_norm", (8, 4, 5, 5)))
        (4.0, 2.5)
    """
    again = {"inference": 0.0, "forward": 0.5, "step": 1.5}[case.mode]
    return least(case).cached + (again if case.operator == "batch_norm" else 0.0)


def copy_bandwidth(case: Case, copy_seconds: float) -> float:
    """Bytes a second that a copy of x moves, reads and writes counted."""
    return 2 * math.prod(case.shape) * case.torch_dtype.itemsize / copy_seconds


def fraction(case: Case, seconds: float, copy_seconds: float) -> float:
    """The case's least traffic in bytes over its time, over the bandwidth of a copy of x.

    Example:
        >>> fraction(Case("batch_norm", (8, 4, 5, 5)), seconds=5.0, copy_seconds=1.0)
        0.8
    """
    return fraction_of(least_copies(case), seconds, copy_seconds)


def fraction_of(copies: float, seconds: float, copy_seconds: float) -> float:
    """The same for a least traffic in copies: the bytes of a copy stand on both sides and cancel."""
    return copies * copy_seconds / seconds
