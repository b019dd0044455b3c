"""The tests that need a GPU, then both benchmarks, within a budget: python -m benchmarks.gpu --out FOLDER.

Sections run the most important first, each in child processes of its own:

    verbs       pytest on the device: what acts on whole networks, the family, the doctor, synchronised
                batch norm (NCCL), and tensors of more than 2^31 elements (tests/device)
    tests       pytest on the device: the tests of the Triton kernels, the functions and the operators
    headline, launches, family, resnet50, compiled, blocks, networks, resnet50 compiled
                the sections of `benchmarks.operators --device cuda` and `benchmarks.networks --device cuda`

FOLDER/gpu.md (every table), gpu.json (the figures), verbs.txt and tests.txt (pytest's output) and log.txt
(what the children say) are written as each case ends, so that a run that is stopped keeps what it has. A
section that there is no time for is dropped, and named; so is each test. Prints a summary last. Needs no
network. The tests alone: --set verbs tests --test-share 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.device import networks, operators
from benchmarks.device.command import add_options, run
from benchmarks.device.gpu_tests import TESTS, sections_of_tests
from benchmarks.device.sections import Section

ORDER = (
    *("verbs", "tests", "headline", "launches", "family", "resnet50"),
    *("compiled", "blocks", "networks", "resnet50 compiled"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs, saves and prints the summary."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [section for name, section in _sections(options).items() if name in options.set]
    with (options.out / "log.txt").open("w") as log:
        report = run("gpu", "A run on a GPU", chosen, options, log=log)
    print(report.summary())


def _sections(options: argparse.Namespace) -> dict[str, Section]:
    found = {
        **sections_of_tests(options),
        **operators.sections(options),
        **networks.sections(options),
    }
    return {name: found[name] for name in ORDER}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--set", nargs="+", choices=ORDER, default=ORDER, help="what to run")
    add("--tests", nargs="+", default=TESTS, help="what pytest is given")
    add("--test-share", type=int, default=4, help="run one test in so many, as each compiles kernels; 1: all")
    add("--only", metavar="GLOB", help="of the operators, cases whose label holds this")
    add_options(parser, minutes=8.0)
    return parser


if __name__ == "__main__":
    main()
