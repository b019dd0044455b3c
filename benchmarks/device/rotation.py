"""Runs a contender over several sets of inputs in a row, so that no cache serves one run what another left.

A task reads and writes each set once, one after the other. Together the sets' x are several times as large as
the device's second cache, and what is computed is kept until the last set is done, as a network keeps it, so
that every tensor comes from memory and goes there. A step runs all the forwards before the first backward, as
a network does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from benchmarks.alternate import Task
from benchmarks.cases import Case
from benchmarks.contenders import Contender
from benchmarks.inputs import Inputs

# How many times the second cache the sets' x are, and the fewest sets.
TIMES_THE_CACHE = 8
FEWEST_SETS = 2


def sets_needed(case: Case, cache_bytes: int) -> int:
    """How many sets of inputs it takes.

    Example:
        >>> case = Case("rms_norm", (8192, 4096), normalized_shape=(4096,), dtype="bfloat16")
        >>> sets_needed(case, 50 * 2**20)
        7
    """
    x_bytes = math.prod(case.shape) * case.torch_dtype.itemsize
    return max(FEWEST_SETS, math.ceil(TIMES_THE_CACHE * cache_bytes / x_bytes))


def second_cache_bytes(device: torch.device) -> int:
    """The size of the device's second cache; for a CPU, as much as makes a rehearsal use the fewest sets."""
    if device.type != "cuda":
        return 0
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or 64 * 2**20


def rotating(contender: Contender, case: Case, sets: Sequence[Inputs]) -> Task:
    """One run of a contender over every set."""

    def forward() -> None:
        kept = [contender(inputs) for inputs in sets]
        kept.clear()

    def inference() -> None:
        with torch.no_grad():
            forward()

    def step() -> None:
        outputs = [contender(inputs) for inputs in sets]
        kept = [
            torch.autograd.grad(y, tuple(inputs.leaves.values()), inputs.dy)
            for y, inputs in zip(outputs, sets, strict=True)
        ]
        kept.clear()

    return {"step": step, "forward": forward, "inference": inference}[case.mode]


def rotating_copy(sets: Sequence[Inputs]) -> Task:
    """The unit: one read and one write of every set's x, to memory that is there already."""
    pairs = [(inputs.x.detach(), torch.empty_like(inputs.x.detach())) for inputs in sets]

    def run() -> None:
        for source, target in pairs:
            target.copy_(source)

    return run
