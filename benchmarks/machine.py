"""What a table must say of the process that it was measured in."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import torch

import normwright
from benchmarks.children import memory_is_reused

FRESH_BYTES = 50 * 10**6
HEAP_BYTES = 2 * 2**30


def describe() -> dict[str, object]:
    """Processor, versions, the state of our backends, and what a fresh 50 MB output costs in page faults."""
    touch_heap()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "backends": ", ".join(backend.name for backend in normwright.backends() if backend.loaded),
        "page faults of a fresh 50 MB output": fresh_output_faults(),
    }


def in_words(facts: dict[str, object]) -> str:
    """The facts on one line."""
    return "; ".join(f"{name} {fact}" for name, fact in facts.items())


def touch_heap() -> None:
    """Touches the memory that outputs will come from, where memory is reused.

    A heap that only grows as it is used takes some ten repetitions to settle: until then, small objects
    left in the gaps of large ones keep sending the next large one to new pages.
    """
    if memory_is_reused():
        torch.ones(HEAP_BYTES, dtype=torch.uint8)


def fresh_output_faults() -> int:
    """Page faults of filling a new tensor, once earlier ones have been freed: few where memory is reused."""
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(FRESH_BYTES // 4)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return after - before


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
