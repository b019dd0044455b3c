"""Every normaliser beside PyTorch's, in copies: python -m benchmarks.operators.

Sets of cases (`--set`, all by default but `bare`):

    headline    the rows by which the kernels are judged, with torch.compile beside them
    networks    every distinct normaliser of ResNet-50, a 3-D U-Net, a diffusion U-Net and a transformer block
    inference   the largest of each of those, at inference
    dtypes      the headline's rows in bfloat16, float16 and float64
    threads     the headline's rows by one thread
    cached      tensors that the caches hold
    bare        the networks' shapes without what follows the normaliser
    overhead    a tensor of 4×8×2×2
    accuracy    errors on ordinary and on hostile inputs

Each set runs in a child process of its own under each allocator setting. Prints and saves the tables.

With `--device cuda` the sets are others (benchmarks/device/operators.py): see `--device cuda --help`.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy import accuracy_cases, accuracy_table, accuracy_verdict, measure_accuracy
from benchmarks.cases import Case, shrunk
from benchmarks.children import ALLOCATORS, DEFAULT, REUSED, Allocator, in_child
from benchmarks.device import operators as device_operators
from benchmarks.device.command import device_of
from benchmarks.machine import describe, in_words
from benchmarks.markdown import bullets
from benchmarks.measure import Failed, Measured, measure_all
from benchmarks.overhead import measure_overheads, overhead_table
from benchmarks.saving import save
from benchmarks.sets import SETS
from benchmarks.speed_table import UNITS, speed_table, verdict

# The settings that a set runs under: both where an output's page faults can decide.
SETTINGS = dict.fromkeys(SETS, (REUSED,)) | {"headline": ALLOCATORS, "networks": ALLOCATORS}
SECONDS = {"headline": 3.0}
OTHER_SECONDS = 0.6


@dataclass
class Findings:
    """What has been measured so far, section by section."""

    machines: dict[str, dict[str, object]] = field(default_factory=dict)
    sections: list[tuple[str, str]] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    speeds: dict[str, list[Measured | Failed]] = field(default_factory=dict)

    def add(self, title: str, allocator: Allocator, text: str, rows: Sequence[object]) -> None:
        """Adds a section and prints it."""
        self.sections.append((f"{title}, {allocator.name}", text))
        self.rows.setdefault(title, {})[allocator.name] = rows
        print(f"\n## {title}, {allocator.name}\n\n{text}", flush=True)

    def verdicts(self) -> list[str]:
        """What the speeds come to under each setting."""
        return [f"## Verdict, {name}\n\n{verdict(rows)}" for name, rows in self.speeds.items()]

    def save(self, folder: Path) -> None:
        """Writes all of it."""
        facts = [f"{name}: {in_words(facts)}" for name, facts in self.machines.items()]
        parts = ["# Operators", bullets(facts), UNITS]
        parts += [f"## {title}\n\n{text}" for title, text in self.sections]
        parts += self.verdicts()
        save(folder, "operators", "\n\n".join(parts), {"machines": self.machines, "sets": self.rows})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and saves."""
    device, others = device_of(arguments)
    if device != "cpu":
        device_operators.main(["--device", device, *others])
        return
    options = _parser().parse_args(others)
    findings = Findings()
    for name in options.set:
        for allocator in _settings(name, options.allocator):
            print(f"{name}, {allocator.name}", file=sys.stderr, flush=True)
            if allocator.name not in findings.machines:
                findings.machines[allocator.name] = in_child(allocator, describe)
            _measure(name, allocator, options, findings)
            findings.save(options.out)
    print("", *findings.verdicts(), sep="\n\n")


def _measure(name: str, allocator: Allocator, options: argparse.Namespace, findings: Findings) -> None:
    if name == "overhead":
        overheads = in_child(allocator, measure_overheads, **_overhead_effort(options.quick))
        findings.add(name, allocator, overhead_table(overheads), overheads)
    elif name == "accuracy":
        cases = _chosen(list(accuracy_cases()), options)
        errors = in_child(allocator, measure_accuracy, cases)
        findings.add(name, allocator, f"{accuracy_table(errors)}\n\n{accuracy_verdict(errors)}", errors)
    else:
        cases = _chosen(list(SETS[name]()), options)
        compile_too = _compile(name, options)
        effort = {"seconds": 0.02, "least": 2} if options.quick else _effort(name)
        rows = in_child(allocator, measure_all, [(case, compile_too) for case in cases], **effort)
        findings.speeds.setdefault(allocator.name, []).extend(rows)
        findings.add(name, allocator, speed_table(rows), rows)


def _effort(name: str) -> dict[str, Any]:
    return {"seconds": SECONDS.get(name, OTHER_SECONDS), "least": 7}


def _overhead_effort(quick: bool) -> dict[str, Any]:
    return {"inner": 2, "repeats": 3} if quick else {}


def _compile(name: str, options: argparse.Namespace) -> bool:
    """Compiling takes longer than all the rest: by default the headline alone, and never in a quick run."""
    if options.compile is None:
        return name == "headline" and not options.quick
    chosen: bool = options.compile
    return chosen


def _settings(name: str, chosen: str | None) -> tuple[Allocator, ...]:
    named = {"default": (DEFAULT,), "reused": (REUSED,), "both": ALLOCATORS}
    return SETTINGS.get(name, (DEFAULT,)) if chosen is None else named[chosen]


def _chosen(cases: list[Case], options: argparse.Namespace) -> list[Case]:
    """The cases after --dtype, --threads, --only and --quick, each once."""
    if options.dtype:
        cases = [replace(case, dtype=dtype) for case in cases for dtype in options.dtype]
    if options.threads:
        cases = [replace(case, threads=options.threads) for case in cases]
    if options.only:
        cases = [case for case in cases if fnmatch.fnmatch(case.label, f"*{options.only}*")]
    if options.quick:
        cases = [shrunk(case) for case in cases]
    return list(dict.fromkeys(cases))


def _parser() -> argparse.ArgumentParser:
    names = [*SETS, "overhead", "accuracy"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", default="cpu", help="cpu, or cuda, which has options of its own")
    default = [name for name in names if name != "bare"]
    add("--set", nargs="+", choices=names, default=default, help="what to measure")
    add("--quick", action="store_true", help="small shapes, few repetitions: does it run?")
    add("--threads", type=int, help="in place of the sets' own")
    add("--dtype", nargs="+", help="in place of the sets' own")
    add("--only", metavar="GLOB", help="cases whose label holds this, such as 'batch_norm*channels-last'")
    add("--allocator", choices=["default", "reused", "both"], help="in place of the sets' own")
    add("--compile", action=argparse.BooleanOptionalAction, help="torch.compile too, or not")
    add("--out", type=Path, default=Path("build/benchmarks"), help="folder to save in")
    return parser


if __name__ == "__main__":
    main()
