"""What recalibrating a network costs beside running it.

    python -m benchmarks.recalibration [--seconds S] [--batch N] [--size S]

A plain inference pass, `recalibrate` and PyTorch's `swa_utils.update_bn` read the same batches, in turn; the
medians of the ratios are quoted, under both settings of the memory allocator. (`update_bn` takes the mean of
the mini-batches' variances, for which it normalises as in training.)
"""

from __future__ import annotations

import argparse

from benchmarks.children import ALLOCATORS, in_child
from benchmarks.machine import describe, in_words
from benchmarks.markdown import figure, table
from benchmarks.statistics_pass import NETWORKS, measure_passes

GOAL = 1.1


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="for each network and setting")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    rows = []
    for allocator in ALLOCATORS:
        for name, (_, batches) in NETWORKS.items():
            passes = in_child(allocator, measure_passes, name, options.batch, options.size, options.seconds)
            ratios = (passes.recalibrate, passes.update_bn, GOAL)
            rows.append(
                (name, str(batches), allocator.name, figure(1e3 * passes.plain, 1), *map(figure, ratios))
            )
    print(in_words(describe()))
    print(f"batches of {options.batch} × 3 × {options.size} × {options.size}\n")
    head = ("network", "batches", "memory", "plain inference, ms", "recalibrate ÷ plain", "update_bn ÷ plain")
    print(table((*head, "asked of recalibrate"), rows))


if __name__ == "__main__":
    main()
