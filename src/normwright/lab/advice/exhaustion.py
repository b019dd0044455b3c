"""Memory that is there, and the errors that say it is not."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

# PyTorch has a class for a GPU's error alone; the CPU's allocator is known by what it says.
_SIGNS = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "ALLOC_FAILED",
)

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception, or the one that caused it, says that memory is used up.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"))
        True
        >>> is_out_of_memory(RuntimeError("shapes differ"))
        False
    """
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


def give_memory_back(device: torch.device) -> None:
    """Frees what nothing refers to any more, and the blocks that a GPU's allocator keeps."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int | None:
    """Bytes that tensors can still take on the device; None where the system does not tell.

    On a GPU that is what the driver has free and the allocator keeps unused. On the CPU it is what Linux
    calls available, or what the process's control group leaves, whichever is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    known = [found for found in (_of_system(), _of_group()) if found is not None]
    return min(known, default=None)


def _of_system() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kibibytes[0] if kibibytes else None


def _of_group() -> int | None:
    """What a container or a job of a cluster leaves: the least that the process's control groups do.

    They are nested, and each may have a limit of its own; those of the second version are read.
    """
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    nested = [] if ".." in own else [_CGROUP / own, *(_CGROUP / outer for outer in Path(own).parents)]
    known = [left for left in map(_left_in, (*nested, _CGROUP)) if left is not None]
    return min(known, default=None)


def _left_in(group: Path) -> int | None:
    try:
        most = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    # Pages of files that were read are given back when memory is asked for.
    return None if most == "max" else max(0, int(most) - used + int(kept.get("inactive_file", 0)))
