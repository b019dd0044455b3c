"""Runs sections, the most important first, within a budget of time; says which it drops."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from benchmarks.device.deadline import Deadline
from benchmarks.device.report import Outcome, Report


@dataclass(frozen=True)
class Section:
    """One part of what is measured.

    Args:
        name: what it is called in the records.
        least: seconds without which it is not begun.
        most: seconds that it may take.
        run: yields its outcome, again whenever there is more of it, and is done by the deadline.
    """

    name: str
    least: float
    most: float
    run: Callable[[Deadline, IO[str] | None], Iterator[Outcome]]


def run_sections(
    sections: Sequence[Section],
    report: Report,
    deadline: Deadline,
    *,
    keep: Callable[[], None],
    log: IO[str] | None = None,
) -> None:
    """Runs each section that there is time for; `keep` is called whenever the report has grown.

    A section that raises is reported, and the others go on.
    """
    for section in sections:
        left = deadline.left
        if left < section.least:
            report.dropped.append(
                f"{section.name}: needs {section.least:.0f} s, {max(left, 0):.0f} s were left"
            )
            keep()
            continue
        print(f"{section.name}, {left:.0f} s left", file=sys.stderr, flush=True)
        try:
            for outcome in section.run(deadline.within(section.most), log):
                report.outcomes[section.name] = outcome
                keep()
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            report.outcomes[section.name] = Outcome(section.name, words, {"failed": words}, (words,))
            keep()
