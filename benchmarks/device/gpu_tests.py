"""Runs the tests that need a GPU, in a child process, their output kept in a file."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks.device.deadline import Deadline
from benchmarks.device.report import Outcome
from benchmarks.device.sections import Section

# What is run on the device (tests/conftest.py); a path that does not exist is reported.
TESTS: tuple[str, ...] = ("tests/backends/triton", "tests/functional", "tests/backends/test_opcheck.py")

# Compiling kernels is the host's work, and most of the time: several processes share the device.
WORKERS = 8

_FAILURES_SHOWN = 25


def section_of_tests(options: argparse.Namespace) -> Section:
    """The section."""
    return Section("tests", 15.0, 210.0, partial(_run, options))


def command(options: argparse.Namespace) -> list[str]:
    """The command line of pytest; several processes where pytest-xdist is installed."""
    paths = [path for path in options.tests if Path(path.partition("::")[0]).exists()]
    parallel = ["-n", str(WORKERS)] if importlib.util.find_spec("xdist") and not options.rehearse else []
    # What is installed there was not chosen for this project: a warning of another's plugin ends nothing.
    lenient = ["-o", "filterwarnings=default"]
    return [sys.executable, "-m", "pytest", "-q", "--tb=short", "--durations=8", *lenient, *parallel, *paths]


def environment(options: argparse.Namespace) -> dict[str, str]:
    """This process's environment, and on which device and how many of the tests are run."""
    chosen = {"NORMWRIGHT_TEST_DEVICE": options.device, "NORMWRIGHT_TEST_SHARE": str(options.test_share)}
    return {**os.environ, **chosen}


def _run(options: argparse.Namespace, deadline: Deadline, log: IO[str] | None) -> Iterator[Outcome]:
    missing = [path for path in options.tests if not Path(path.partition("::")[0]).exists()]
    notes = [f"{path} does not exist" for path in missing]
    if options.test_share > 1:
        notes.append(f"one test in {options.test_share} of each file (--test-share)")
    if len(missing) == len(options.tests):
        yield Outcome("Tests", "\n".join(notes), {"missing": missing}, notes)
        return
    path = options.out / "tests.txt"
    with path.open("w") as output:
        process = subprocess.Popen(
            command(options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(options),
        )
        try:
            code: int | None = process.wait(timeout=max(deadline.left, 1.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
            process.wait()
    yield _outcome(path.read_text(errors="replace"), code, notes)


def _outcome(output: str, code: int | None, notes: list[str]) -> Outcome:
    lines = output.splitlines()
    last = next((line.strip("= ") for line in reversed(lines) if line.strip()), "no output")
    ended = "stopped, for want of time" if code is None else f"ended with code {code}"
    failures = [line for line in lines if re.match(r"(FAILED|ERROR)\b", line)]
    shown = [line[:200] for line in failures[:_FAILURES_SHOWN]]
    if len(failures) > len(shown):
        shown.append(f"… {len(failures) - len(shown)} more in tests.txt")
    summary = [f"**pytest {ended}: {last}**", *notes, *shown]
    markdown = "\n".join([*summary[:1], "", "```", *notes, *shown, "```"]) if len(summary) > 1 else summary[0]
    records = {"code": code, "last": last, "failures": failures}
    return Outcome("Tests", markdown, records, summary)
