"""Every kernel compiles for a GPU, be there one or not: the interpreter takes what a compiler refuses.

None adds up by atomics, whose order, and so the last bits of a sum, is another in every run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from normwright.backends import triton as kernels

HERE = Path(__file__).parent


def launched():
    """The kernels that the launchers' sources name, as in `launch(forward_rows, grid)(…)`."""
    sources = [path.read_text() for path in Path(kernels.__file__).parent.glob("*.py")]
    return {name for source in sources for name in re.findall(r"\blaunch\(([a-z]\w*), ", source)}


def test_every_kernel_compiles_for_hopper():
    interpreting = ("TRITON_INTERPRET", kernels.SWITCH)
    environment = {name: value for name, value in os.environ.items() if name not in interpreting}
    command = [sys.executable, HERE / "ahead_of_time.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compiled = {line.split()[0] for line in done.stdout.splitlines()}
    assert launched()
    assert launched() <= compiled
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.endswith(" atomics=0")] == []
    # By way of a table the compiler must be told what lies together; where a length is odd, nothing can.
    even = [line for line in lines if re.match(r"(for|back)ward_parts .* fp32 (1 16 False|16 1 True) ", line)]
    assert len(even) == 8
    assert [line for line in even if " stores=16 " not in line] == []
