"""Every normaliser beside other implementations on a GPU: python -m benchmarks.operators --device cuda.

    headline    the rows by which the kernels are judged: 2^24 elements and more, forward and step
    compiled    some of them with torch.compile beside them
    launches    how many kernels a call launches, and how long the host takes for it
    networks    the normalisers of the networks at a batch that fills a GPU
    family      statistics over parts of a batch, and dynamic tanh, beside batch norm

Each case runs in a child process that outlives no failure but its own. Saves after every case.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO

from benchmarks.cases import Case, shrunk
from benchmarks.device import judgement, sets
from benchmarks.device.command import add_options, run
from benchmarks.device.deadline import Deadline
from benchmarks.device.family import family_section
from benchmarks.device.isolated import NotRun, run_jobs
from benchmarks.device.launches import launches_section
from benchmarks.device.measure import DeviceMeasured, Job, compile_job, measure_job
from benchmarks.device.report import Outcome
from benchmarks.device.sections import Section
from benchmarks.device.speed_table import UNITS, notes, speed_table
from benchmarks.device.warming import warm
from benchmarks.markdown import bullets

TITLES = {
    "headline": "Operators",
    "compiled": "Operators beside torch.compile",
    "networks": "The networks' normalisers",
}
# Seconds that compiling ahead may take.
_WARMING = 60.0

NAMES = ("headline", "launches", "compiled", "networks", "family")


def sections(options: argparse.Namespace) -> dict[str, Section]:
    """The sections by name, the most important first."""
    seconds = {"headline": (20.0, 200.0), "compiled": (45.0, 150.0), "networks": (25.0, 90.0)}
    found = {name: Section(name, *seconds[name], partial(_speeds, name, options)) for name in seconds}
    found["launches"] = launches_section(options)
    found["family"] = family_section(options)
    return {name: found[name] for name in NAMES}


def _speeds(
    name: str, options: argparse.Namespace, deadline: Deadline, log: IO[str] | None
) -> Iterator[Outcome]:
    jobs = [_job(entry, name, options) for entry in _chosen(getattr(sets, name)(), options)]
    if not options.rehearse:
        warm(compile_job, jobs, deadline=deadline.within(_WARMING), log=log)
    rows: list[DeviceMeasured] = []
    failed: list[str] = []
    late = 0
    for number, result in run_jobs(measure_job, jobs, deadline=deadline, log=log):
        if isinstance(result, list):
            rows += result
        elif isinstance(result, NotRun):
            late += 1
        else:
            failed.append(f"{judgement.place_of(jobs[number].cases[-1])}: {result.reason}")
        yield _outcome(name, rows, failed, late)


def _job(entry: tuple[Case, ...], name: str, options: argparse.Namespace) -> Job:
    if options.rehearse:
        small = tuple(shrunk(case, 2**14) for case in entry)
        return Job(small, device="cpu", seconds=0.0, least=2)
    return Job(entry, compile_too=name == "compiled", device=options.device)


def _chosen(entries: sets.Entries, options: argparse.Namespace) -> sets.Entries:
    if not options.only:
        return entries
    return [entry for entry in entries if fnmatch.fnmatch(entry[-1].label, f"*{options.only}*")]


def _outcome(name: str, rows: Sequence[DeviceMeasured], failed: Sequence[str], late: int) -> Outcome:
    words = judgement.verdict(rows) if name != "networks" else _slower(rows)
    trouble = [f"failed: {line}" for line in failed]
    if late:
        trouble.append(f"not measured, for want of time: {late} cases")
    parts = [UNITS] if name == "headline" else []
    parts += [words[0], bullets([*words[1:], *trouble]), speed_table(rows), notes(rows)]
    records = {"rows": rows, "failed": failed, "not measured": late}
    return Outcome(TITLES[name], "\n\n".join(part for part in parts if part), records, [*words, *trouble])


def _slower(rows: Sequence[DeviceMeasured]) -> list[str]:
    ratios = [(row.seconds["ours"] / row.seconds["eager"], row) for row in rows if "eager" in row.seconds]
    slower = sorted(((ratio, row) for ratio, row in ratios if ratio > 1.0), key=lambda entry: -entry[0])
    lines = [f"**Slower than eager: {len(slower)} of {len(ratios)} cases**"]
    return lines + [f"{ratio:.2f} {judgement.place(row)}" for ratio, row in slower]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, saves and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operators --device cuda",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--set", nargs="+", choices=NAMES, default=NAMES, help="what to measure")
    parser.add_argument("--only", metavar="GLOB", help="cases whose label holds this")
    add_options(parser, minutes=9.0)
    options = parser.parse_args(arguments)
    chosen = [section for name, section in sections(options).items() if name in options.set]
    print(run("operators", "Operators on a GPU", chosen, options).page())
