"""Every kernel compiles for GPUs, be there one or not: the interpreter takes what a compiler refuses.

Every launch, and other targets: python ahead_of_time.py TARGET.

None adds up by atomics, whose order, and so the last bits of a sum, is another in every run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from normwright.backends import triton as kernels

HERE = Path(__file__).parent


def launched():
    """The kernels that the launchers' sources name, as in `launch(forward_rows, grid)(…)`."""
    sources = [path.read_text() for path in Path(kernels.__file__).parent.glob("*.py")]
    return {name for source in sources for name in re.findall(r"\blaunch\(([a-z]\w*), ", source)}


def compiled(*arguments):
    """A line for each launch that was compiled; none adds by atomics."""
    interpreting = ("TRITON_INTERPRET", kernels.SWITCH)
    environment = {name: value for name, value in os.environ.items() if name not in interpreting}
    command = [sys.executable, HERE / "ahead_of_time.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.endswith(" atomics=0")] == []
    return lines


def of_target(lines, target):
    """The kernels that were compiled for it."""
    words = [line.split() for line in lines]
    return {kernel for compiled_for, kernel, *_ in words if compiled_for == target}


def test_every_kernel_compiles_for_hopper():
    lines = compiled("--each", "value")
    assert launched()
    assert launched() <= of_target(lines, "cuda:90")
    # By way of a table the compiler must be told what lies together; where a length is odd, nothing can.
    even = [line for line in lines if re.search(r"ward_parts .* fp32 (1 16 False|16 1 True) ", line)]
    assert len(even) == 6
    assert [line for line in even if " stores=16 " not in line] == []


@pytest.mark.parametrize("target", ["cuda:75", "hip:gfx942"])
def test_every_kernel_compiles_for_older_gpus_and_amd_s(target):
    """The oldest with tensor cores, which copies nothing to shared memory meanwhile; warps of 64 threads."""
    assert launched() <= of_target(compiled("--each", "kernel", target), target)
