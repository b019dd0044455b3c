"""What `import normwright` adds to `import torch`: python -m benchmarks.import_time.

Fresh processes in turn, each timing its own import of normwright after that of torch.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

REPEATS = 15
CODE = """
import time
start = time.perf_counter(); import torch; middle = time.perf_counter(); import normwright
print(middle - start, time.perf_counter() - middle)
"""


def main() -> None:
    """Measures and prints."""
    times = []
    for _ in range(REPEATS + 1):
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
        times.append(tuple(float(word) for word in done.stdout.split()))
    torch_seconds = statistics.median(first for first, _ in times[1:])
    ours = [second for _, second in times[1:]]
    print(f"import torch {1e3 * torch_seconds:.0f} ms (median of {REPEATS} processes)")
    print(
        f"import normwright adds {1e3 * statistics.median(ours):.0f} ms "
        f"({1e3 * min(ours):.0f} to {1e3 * max(ours):.0f}), {statistics.median(ours) / torch_seconds:.1%}"
    )


if __name__ == "__main__":
    main()
