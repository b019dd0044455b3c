"""RMS norm as a language model writes it out, beside the one operator that `accelerate` makes of it.

    python -m benchmarks.written_out [--seconds S] [--threads N]

Transformers' `LlamaRMSNorm`, `T5LayerNorm` and `Qwen3NextRMSNormGated` (whose gate stays as it is written)
alone, and a Llama of two layers (256 tokens); a step is forward, the mean square as loss, and backward. The
medians of the ratios, accelerated over plain, in turn.
"""

from __future__ import annotations

import argparse

from benchmarks.children import ALLOCATORS, in_child
from benchmarks.machine import describe, in_words
from benchmarks.markdown import figure, table
from benchmarks.written_out_pass import measure_all


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each figure")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows = [
        (name, allocator.name, figure(inference), figure(step))
        for allocator in ALLOCATORS
        for name, inference, step in in_child(allocator, measure_all, options.seconds, options.threads)
    ]
    print(in_words(describe()))
    print(table(("accelerated ÷ plain", "memory", "inference", "step"), rows))


if __name__ == "__main__":
    main()
