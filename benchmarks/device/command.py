"""What the commands that measure on a GPU have in common: options, and how their sections are run."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch

from benchmarks.device.deadline import deadline_in
from benchmarks.device.isolated import Raised, run_jobs
from benchmarks.device.machine import describe
from benchmarks.device.report import Report
from benchmarks.device.sections import Section, run_sections


def add_options(parser: argparse.ArgumentParser, *, minutes: float) -> None:
    """Adds --device, --minutes, --rehearse and --out."""
    add = parser.add_argument
    add("--device", default="cuda", help="torch's name of it")
    add("--minutes", type=float, default=minutes, help="what there is no time for is dropped, and named")
    add("--rehearse", action="store_true", help="small shapes on the CPU: does it run?")
    add("--out", type=Path, default=Path("build/benchmarks/gpu"), help="folder to save in")


def device_of(arguments: Sequence[str] | None) -> tuple[str, list[str]]:
    """The device that a command line names, the CPU by default, and the rest of the line.

    Example:
        >>> device_of(["--device", "cuda", "--only", "rms_norm*"])
        ('cuda', ['--only', 'rms_norm*'])
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="cpu")
    options, others = parser.parse_known_args(arguments)
    return options.device, others


def run(
    name: str,
    title: str,
    sections: Sequence[Section],
    options: argparse.Namespace,
    *,
    log: IO[str] | None = None,
) -> Report:
    """Runs the sections within the minutes; OUT/name.md and name.json are written whenever one has grown."""
    deadline = deadline_in(60 * options.minutes)
    if options.rehearse:
        options.device = "cpu"
    elif not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here: run on a machine that has one, or --rehearse on the CPU")
    with contextlib.closing(run_jobs(describe, [options.device], deadline=deadline, log=log)) as described:
        _, facts = next(described)
    if not isinstance(facts, dict):
        facts = {"device": facts.reason if isinstance(facts, Raised) else "not described"}
    report = Report(title, facts)

    def keep() -> None:
        report.save(options.out, name)

    keep()
    run_sections(sections, report, deadline, keep=keep, log=log)
    return report
