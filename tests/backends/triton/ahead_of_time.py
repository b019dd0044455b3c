"""Compiles every launch of the Triton kernels for a GPU that need not be there: python ahead_of_time.py.

Triton's compiler, and the assembler that it brings, need no GPU; only launching does. So the launchers are
called on tensors of the CPU, whose results mean nothing, and each launch is compiled for Hopper in place of
running. Prints a line for each: the kernel, its options, how many bytes of registers spill to memory, how
many bytes a thread stores at once, and how many instructions there are whose order no program decides:
atomics, and reductions in memory.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
}


class Signature:
    """What a launch is compiled for: its arguments' types, which of them are constants, which aligned."""

    def __init__(self, kernel: JITFunction, given: dict[str, Any]) -> None:
        self.types: dict[str, str] = {}
        self.constants: dict[tuple[int], Any] = {}
        self.alignments: dict[tuple[int], Any] = {}
        for place, parameter in enumerate(kernel.params):
            self._add((place,), parameter, given[parameter.name])

    def _add(self, place: tuple[int], parameter: Any, value: Any) -> None:
        one = value == 1 if type(value) is int else False
        if parameter.is_constexpr or value is None or (one and not parameter.do_not_specialize):
            self.types[parameter.name] = "constexpr"
            self.constants[place] = value
            return
        if isinstance(value, torch.Tensor):
            self.types[parameter.name] = f"*{TYPES[value.dtype]}"
        elif isinstance(value, float):
            self.types[parameter.name] = parameter.annotation_type or "fp32"
        else:
            self.types[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
        number = value.data_ptr() if isinstance(value, torch.Tensor) else value
        if isinstance(number, int) and number % 16 == 0 and not parameter.do_not_specialize:
            self.alignments[place] = [["tt.divisibility", 16]]

    def __str__(self) -> str:
        return f"{self.types} {self.constants} {self.alignments}"


def compiled(kernel: JITFunction, given: dict[str, Any], num_warps: int) -> tuple[Signature, Any]:
    """The launch's signature and machine code."""
    signature = Signature(kernel, given)
    source = ASTSource(kernel, signature.types, signature.constants, signature.alignments)
    return signature, triton.compile(source, target=HOPPER, options={"num_warps": num_warps})


def spills(machine_code: bytes) -> int:
    """Bytes of stack that a kernel uses, by the tool that Triton brings."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(machine_code)
        command = [tool, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(usage.split("STACK:")[1].split()[0])


def atomics(assembly: str) -> int:
    """Instructions by which programs add to the same memory, in the order in which they come."""
    return len(re.findall(r"^\s*(?:@!?%\w+\s+)?(?:atom|red)\.", assembly, re.MULTILINE))


def widest_store(assembly: str) -> int:
    """Bytes that a thread stores at once, at the most: 16 where the compiler knows what lies together."""
    found = re.findall(r"\bst\.global\S*?(?:\.v(\d))?\.b(\d+)", assembly)
    return max((int(count or 1) * int(bits) // 8 for count, bits in found), default=0)


def watch() -> None:
    """From now on a launch is compiled, once, and not run."""
    seen = set()

    def run(kernel: JITFunction, *args: Any, num_warps: int, **kwargs: Any) -> None:
        given = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        key = (kernel.__name__, str(Signature(kernel, given)), num_warps)
        if key in seen:
            return
        seen.add(key)
        signature, code = compiled(kernel, given, num_warps)
        options = [str(value) for value in signature.constants.values()]
        ptx = code.asm["ptx"]
        found = [f"spills={spills(code.asm['cubin'])}", f"stores={widest_store(ptx)}"]
        found.append(f"atomics={atomics(ptx)}")
        line = [kernel.__name__, *options, *found]
        print(*line, flush=True)  # noqa: T201  # read by test_compiles.py, and by people

    def launcher(kernel: JITFunction, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: run(kernel, *args, **kwargs)

    JITFunction.__getitem__ = launcher


if __name__ == "__main__":
    assert "TRITON_INTERPRET" not in os.environ, "the interpreter compiles nothing"
    watch()
    from launches import launch_all

    launch_all()
