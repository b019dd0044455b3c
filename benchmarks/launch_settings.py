"""Times candidates of the Triton kernels' launch settings: python -m benchmarks.launch_settings --out FOLDER.

For each row of the headline on a GPU, forward and backward apart: the settings that the kernels' table has
for it, and what lies one or two moves away (benchmarks/device/candidates.py), in turn beside a copy.
FOLDER/launch_settings.md and launch_settings.json are written as each trial ends, with the best of each.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO

from benchmarks.cases import shrunk
from benchmarks.device.command import add_options, run
from benchmarks.device.deadline import Deadline
from benchmarks.device.goals import DEVICE_HEADLINE
from benchmarks.device.isolated import NotRun, run_jobs
from benchmarks.device.report import Outcome
from benchmarks.device.sections import Section
from benchmarks.device.trials import Trial, TrialResult, compile_trial, run_trial
from benchmarks.device.warming import warm
from benchmarks.markdown import bullets, table

PARTS = ("forward", "backward")

# Below this a candidate is no better than the table's own: that much two runs of one kernel differ.
WORTH = 1.02


def main(arguments: Sequence[str] | None = None) -> None:
    """Tries, saves and prints the best of each."""
    options = _parser().parse_args(arguments)
    if options.rehearse:
        os.environ["NORMWRIGHT_TRITON"] = "interpret"
    options.out.mkdir(parents=True, exist_ok=True)
    section = Section("launch settings", 20.0, 3600.0, partial(_measure, options))
    with (options.out / "launch_settings_log.txt").open("w") as log:
        report = run("launch_settings", "Launch settings", [section], options, log=log)
    print(report.summary())


def trials(options: argparse.Namespace) -> list[Trial]:
    """What is tried, in the order of the headline."""
    found = []
    for case in (case for case in DEVICE_HEADLINE if case.mode == "step"):
        for part in options.part:
            trial = Trial(case, part, options.device, most=options.most)
            if options.rehearse:
                trial = Trial(shrunk(case, 2**8), part, "cpu", 0.0, most=3, least=1)
            if not options.only or fnmatch.fnmatch(f"{case.label} {part}", f"*{options.only}*"):
                found.append(trial)
    return found


def _measure(options: argparse.Namespace, deadline: Deadline, log: IO[str] | None) -> Iterator[Outcome]:
    jobs = trials(options)
    if not options.rehearse:
        warm(compile_trial, jobs, deadline=deadline.within(deadline.left / 2), log=log)
    results: list[TrialResult] = []
    trouble: list[str] = []
    for number, result in run_jobs(run_trial, jobs, deadline=deadline, log=log):
        if isinstance(result, TrialResult):
            results.append(result)
        else:
            words = "no time was left" if isinstance(result, NotRun) else result.reason
            trouble.append(f"{_place(jobs[number])}: {words}")
        yield _outcome(results, trouble)


def _outcome(results: Sequence[TrialResult], trouble: Sequence[str]) -> Outcome:
    head = ("operator", "shape", "layout", "dtype", "part", "own", "of copy", "best", "of copy")
    best = table(head, [_best_cells(result) for result in results])
    every = "\n\n".join(f"### {_place(result.trial)}\n\n{_every(result)}" for result in results)
    better = [result for result in results if _gain(result) > WORTH]
    summary = [f"**{len(better)} of {len(results)} rows of the table have a better candidate**"]
    summary += [
        f"{_place(result.trial)}: {_fraction(result.own.fraction)} -> {_fraction(result.best.fraction)} "
        f"{result.best.settings}"
        for result in better
    ]
    markdown = "\n\n".join([summary[0], bullets(trouble), best, every])
    return Outcome("Launch settings", markdown, {"trials": results, "trouble": trouble}, [*summary, *trouble])


def _best_cells(result: TrialResult) -> tuple[str, ...]:
    case, own, best = result.trial.case, result.own, result.best
    return (
        *(case.what, case.size, case.layout, case.dtype, result.trial.part),
        *(own.settings, _fraction(own.fraction)),
        *((best.settings, _fraction(best.fraction)) if _gain(result) > WORTH else ("the same", "")),
    )


def _gain(result: TrialResult) -> float:
    """The best candidate's speed over that of the table's own."""
    own, best = result.own.fraction, result.best.fraction or 0.0
    return float("inf") if own is None and best else best / own if own else 0.0


def _every(result: TrialResult) -> str:
    ordered = sorted(result.tried, key=lambda tried: -(tried.fraction or 0.0))
    rows = [(tried.settings, _fraction(tried.fraction), tried.trouble) for tried in ordered]
    return table(("settings", "of copy", ""), rows)


def _fraction(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _place(trial: Trial) -> str:
    case = trial.case
    return f"{case.what} {case.size} {case.layout} {case.dtype} {trial.part}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.launch_settings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="GLOB", help="trials whose label and part hold this, such as 'batch_norm*backward'")
    add("--part", nargs="+", choices=PARTS, default=PARTS)
    add("--most", type=int, default=24, help="candidates of a trial, the nearest first")
    add_options(parser, minutes=8.0)
    return parser


if __name__ == "__main__":
    main()
