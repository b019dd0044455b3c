"""Runs the tests that need a GPU, in a child process, their output kept in a file."""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks.device import turns
from benchmarks.device.deadline import Deadline
from benchmarks.device.report import Outcome
from benchmarks.device.sections import Section
from benchmarks.device.turns import Turn
from benchmarks.markdown import table

# What is run on the device (tests/conftest.py), the most valuable first; what does not exist is reported.
VERBS: tuple[str, ...] = tuple(
    f"tests/device/test_{name}.py"
    for name in ("synchronised", "large", "networks", "statistics", "family", "doctor")
)
TESTS: tuple[str, ...] = (
    "tests/backends/triton",
    "tests/functional",
    "tests/backends/test_lstm_cell.py",
    "tests/backends/test_parts.py",
    "tests/backends/test_opcheck.py",
)

# Compiling kernels is the host's work, and most of the time: several processes share the device.
WORKERS = 8

_POLL = 0.05
_SHOWN = 25
_OUTCOMES = ("passed", "failed", "skipped", "no turn")


@dataclass(frozen=True)
class Suite:
    """Tests that are run together.

    Args:
        name: of its section.
        title: its heading.
        paths: what pytest is given, the most valuable first.
        share: one test of so many in each file is run.
        most: seconds that they may take.
    """

    name: str
    title: str
    paths: Sequence[str]
    share: int
    most: float

    @property
    def present(self) -> list[str]:
        """The paths that exist."""
        return [path for path in self.paths if Path(path.partition("::")[0]).exists()]


def suites(options: argparse.Namespace) -> tuple[Suite, ...]:
    """What is run, the most valuable first."""
    return (
        Suite("verbs", "Tests of whole networks, synchronised batch norm and large tensors", VERBS, 1, 150.0),
        Suite("tests", "Tests of the operators", options.tests, options.test_share, 210.0),
    )


def sections_of_tests(options: argparse.Namespace) -> dict[str, Section]:
    """The sections by name."""
    return {
        suite.name: Section(suite.name, 15.0, suite.most, partial(_run, suite, options))
        for suite in suites(options)
    }


def command(suite: Suite, options: argparse.Namespace) -> list[str]:
    """The command line of pytest; several processes where pytest-xdist is installed."""
    parallel: list[str] = []
    if importlib.util.find_spec("xdist") and not options.rehearse:
        parallel = ["-n", str(WORKERS), "--dist", "loadgroup"]
    # What is installed there was not chosen for this project: a warning of another's plugin ends nothing.
    lenient = ["-o", "filterwarnings=default"]
    listed = ["-p", turns.__name__]
    reported = ["-q", "--tb=short", "--durations=8", "--continue-on-collection-errors"]
    return [sys.executable, "-m", "pytest", *reported, *listed, *lenient, *parallel, *suite.present]


def environment(suite: Suite, options: argparse.Namespace, folder: str) -> dict[str, str]:
    """This process's, with the device, the share of the tests, and the folder that notes their turns."""
    chosen = {"NORMWRIGHT_TEST_DEVICE": options.device, "NORMWRIGHT_TEST_SHARE": str(suite.share)}
    return {**os.environ, **chosen, turns.SWITCH: folder}


def _run(
    suite: Suite, options: argparse.Namespace, deadline: Deadline, log: IO[str] | None
) -> Iterator[Outcome]:
    missing = [path for path in suite.paths if path not in suite.present]
    notes = [f"{path} does not exist" for path in missing]
    if suite.share > 1:
        notes.append(f"one test in {suite.share} of each file (--test-share)")
    if not suite.present:
        yield Outcome(suite.title, "\n".join(notes), {"missing": missing}, notes)
        return
    path = options.out / f"{suite.name}.txt"
    with path.open("w") as output, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command(suite, options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(suite, options, folder),
            start_new_session=True,
        )
        try:
            while process.poll() is None and deadline.left > 0:
                time.sleep(_POLL)
            code = process.poll()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its workers, which would go on on the device
            process.wait()
        found = turns.turns(Path(folder))
    yield _outcome(suite, path, code, notes, found)


def _outcome(suite: Suite, path: Path, code: int | None, notes: list[str], found: Sequence[Turn]) -> Outcome:
    counts = collections.Counter(turn.outcome for turn in found)
    lines = path.read_text(errors="replace").splitlines()
    last = next((line.strip("= ") for line in reversed(lines) if line.strip()), "no output")
    ended = "stopped, for want of time" if code is None else f"ended with code {code}: {last}"
    counted = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts[outcome])
    summary = [f"**{counted or 'no test'}; pytest {ended}**", *notes, *_named(path, found)]
    named = ["\n".join(["```", *summary[1:], "```"])] if summary[1:] else []
    markdown = "\n\n".join([summary[0], *named, _by_file(found)])
    records = {"code": code, "last": last, "tests": [vars(turn) for turn in found]}
    return Outcome(suite.title, markdown, records, summary)


def _named(path: Path, found: Sequence[Turn]) -> Iterator[str]:
    """Those that failed, those that had no turn, and why others were skipped."""
    for outcome in ("failed", "no turn"):
        tests = [turn.test for turn in found if turn.outcome == outcome]
        yield from (f"{outcome}: {test}"[:200] for test in tests[:_SHOWN])
        if len(tests) > _SHOWN:
            yield f"{outcome}: {len(tests) - _SHOWN} more, in {path.name} and the records"
    for why, number in collections.Counter(turn.why for turn in found if turn.outcome == "skipped").items():
        yield f"skipped: {number}, {why}"[:200]


def _by_file(found: Sequence[Turn]) -> str:
    files = collections.defaultdict(collections.Counter)  # type: ignore[var-annotated]
    for turn in found:
        files[turn.test.partition("::")[0]][turn.outcome] += 1
    rows = [[file, *(str(counts[outcome]) for outcome in _OUTCOMES)] for file, counts in files.items()]
    return table(["file", *_OUTCOMES], rows)
