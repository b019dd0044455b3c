"""Compiles the launches of the Triton kernels for GPUs that need not be there.

    python ahead_of_time.py                               for Hopper
    python ahead_of_time.py hip:gfx942                    for another target
    python ahead_of_time.py --each value hip:gfx1100      fewer launches, which show each option

Triton's compiler, and the assemblers that it brings, need no GPU; only launching does. So the launchers are
called on tensors of the CPU, whose results mean nothing, and each launch is compiled in place of running.
Prints a line for each: the target, the kernel, its constants, its threads, how many bytes of memory they
share, how many bytes of a thread's registers spill to memory, how many bytes a thread stores at once, and how
many instructions there are whose order no program decides: atomics, and reductions in memory. Where a launch
asks for more memory than its target has, the launcher is told so, and what it does next is compiled.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver
from triton.runtime.errors import OutOfResources
from triton.runtime.jit import JITFunction

HOPPER = "cuda:90"

# Kilobytes that the threads of a program can share: a block's, of the CUDA programming guide's table of
# compute capabilities; the local data share of a work-group on AMD's.
SHARED = {
    "cuda:70": 96,
    "cuda:75": 64,
    "cuda:80": 163,
    "cuda:86": 99,
    "cuda:89": 99,
    HOPPER: 227,
    "cuda:100": 227,
    "cuda:120": 99,
    "hip:gfx908": 64,
    "hip:gfx90a": 64,
    "hip:gfx942": 64,
    "hip:gfx950": 160,
    "hip:gfx1030": 64,
    "hip:gfx1100": 64,
    "hip:gfx1201": 64,
}
MOST_THREADS = 1024  # of a program, on all of them


def target_of(name: str) -> GPUTarget:
    """As in "cuda:90" or "hip:gfx942"; AMD's warps have 32 threads from gfx10 on."""
    backend, arch = name.split(":")
    if backend == "cuda":
        return GPUTarget(backend, int(arch), 32)
    return GPUTarget(backend, arch, 32 if int(arch[3:-2]) >= 10 else 64)


class Absent(DriverBase):
    """Says of a GPU that is not there what Triton asks before it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError("nothing is launched")

    def get_active_torch_device(self) -> Any:
        raise NotImplementedError("nothing is launched")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("nothing is launched")


def spills(code: Any) -> int:
    """Bytes of stack that a thread uses: of CUDA's kernels by the tool that Triton brings."""
    if "amdgcn" in code.asm:
        return int(re.search(r"\.private_segment_fixed_size: (\d+)", code.asm["amdgcn"])[1])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(code.asm["cubin"])
        command = [tool, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(usage.split("STACK:")[1].split()[0])


def atomics(code: Any) -> int:
    """Instructions by which programs add to the same memory, in the order in which they come."""
    if "amdgcn" in code.asm:
        instructions = r"^\s*(?:(?:global|flat|buffer)_atomic|ds_(?:pk_)?add)_"
        return len(re.findall(instructions, code.asm["amdgcn"], re.MULTILINE))
    return len(re.findall(r"^\s*(?:@!?%\w+\s+)?(?:atom|red)\.", code.asm["ptx"], re.MULTILINE))


# How AMD's assembly calls what it stores, in bits where it does not name a size.
_SIZES = {"byte": 8, "short": 16, "dword": 32}


def widest_store(code: Any) -> int:
    """Bytes that a thread stores at once, at the most: 16 where the compiler knows what lies together."""
    if "amdgcn" in code.asm:
        stores = re.findall(r"\b(?:global|flat|buffer)_store_(byte|short|dword|b)x?(\d*)", code.asm["amdgcn"])
        bits = [_SIZES.get(word, 1) * int(number or 1) for word, number in stores]
    else:
        stores = re.findall(r"\bst\.global\S*?(?:\.v(\d))?\.b(\d+)", code.asm["ptx"])
        bits = [int(count or 1) * int(size) for count, size in stores]
    return max(bits, default=0) // 8


def shown(kernel: JITFunction, arguments: tuple[Any, ...], each: str) -> set[Any]:
    """What a launch shows if compiled: the kernel; or its arguments' values, of a size only 0, 1 or more."""
    if each == "kernel":
        return {kernel.__name__}
    found = set()
    for parameter, value in zip(kernel.params, arguments, strict=True):
        if isinstance(value, torch.Tensor):
            value = value.dtype
        elif type(value) is int:
            value = min(value, 2)
        elif isinstance(value, float):
            value = float
        found.add((kernel.__name__, parameter.name, value))
    return found


def line_of(name: str, kernel: JITFunction, code: Any) -> str:
    """What is printed of a launch."""
    found = {
        "threads": code.metadata.num_warps * code.metadata.target.warp_size,
        "shared": code.metadata.shared,
        "spills": spills(code),
        "stores": widest_store(code),
        "atomics": atomics(code),
    }
    numbers = (f"{key}={value}" for key, value in found.items())
    return " ".join(map(str, (name, kernel.__name__, *code.src.constants.values(), *numbers)))


def watch(name: str, each: str) -> None:
    """From now on launches are compiled for a target, once, and not run."""
    target = target_of(name)
    driver.set_active(Absent(target))
    known: set[Any] = set()

    def run(kernel: JITFunction, *arguments: Any, num_warps: int) -> None:
        new = set() if each == "launch" else shown(kernel, arguments, each) - known
        if each != "launch" and not new:
            return
        code = kernel.run(*arguments, num_warps=num_warps, grid=None, warmup=True)
        for asked, room, what in (
            (code.metadata.shared, SHARED[name] * 1024, "shared memory"),
            (num_warps * target.warp_size, MOST_THREADS, "threads"),
        ):
            if asked > room:  # as on the GPU
                raise OutOfResources(asked, room, what)
        known.update(new)
        if id(code) not in known:
            known.add(id(code))
            line = line_of(name, kernel, code)
            print(line, flush=True)  # noqa: T201  # read by test_compiles.py, and by people

    JITFunction.__getitem__ = lambda kernel, grid: functools.partial(run, kernel)


if __name__ == "__main__":
    assert "TRITON_INTERPRET" not in os.environ, "the interpreter compiles nothing"
    parser = argparse.ArgumentParser()
    parser.add_argument("target", nargs="?", default=HOPPER, choices=SHARED)
    parser.add_argument("--each", choices=("launch", "value", "kernel"), default="launch")
    options = parser.parse_args()
    watch(options.target, options.each)
    from launches import launch_all

    launch_all()
