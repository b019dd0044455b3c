"""Whether a measured row reaches its goal, condition by condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.cases import Case
from benchmarks.device.bandwidth import fraction
from benchmarks.device.goals import DEVICE_HEADLINE
from benchmarks.device.measure import DeviceMeasured


@dataclass(frozen=True)
class Condition:
    """One thing that is asked of a row: what, how much at least, and how much it is (None: not measured)."""

    what: str
    least: float
    found: float | None

    @property
    def reached(self) -> bool | None:
        """None where it was not measured."""
        return None if self.found is None else self.found >= self.least

    def __str__(self) -> str:
        found = "not measured" if self.found is None else f"{self.found:.2f}"
        return f"{found} of {self.what} (asked: {self.least:.2f})"


def conditions(row: DeviceMeasured) -> tuple[Condition, ...]:
    """What is asked of a row of the headline; nothing of another."""
    goal = DEVICE_HEADLINE.get(row.case)
    if goal is None:
        return ()
    ours, copy = row.seconds["ours"], row.seconds["copy"]
    asked = [Condition("the copy bandwidth", goal.fraction, fraction(row.case, ours, copy))]
    for name, least in goal.times.items():
        theirs = row.seconds.get(name)
        asked.append(Condition(f"{name}'s speed", least, None if theirs is None else theirs / ours))
    return tuple(asked)


def cell(row: DeviceMeasured) -> str:
    """The table's last cell: yes, or no and why, or nothing where nothing is asked."""
    asked = conditions(row)
    missed = "; ".join(str(condition) for condition in asked if condition.reached is False)
    unknown = "; ".join(condition.what for condition in asked if condition.reached is None)
    if missed:
        return f"no: {missed}"
    if unknown:
        return f"as far as measured (not: {unknown})"
    return "yes" if asked else ""


def verdict(rows: Sequence[DeviceMeasured]) -> list[str]:
    """How many rows reach their goals, and each that does not."""
    judged = [row for row in rows if conditions(row)]
    missed = [row for row in judged if any(condition.reached is False for condition in conditions(row))]
    lines = [f"**{len(judged) - len(missed)} of {len(judged)} rows reach what was measured of their goals**"]
    return lines + list(_misses(missed))


def _misses(rows: Sequence[DeviceMeasured]) -> Iterator[str]:
    for row in rows:
        missed = [str(condition) for condition in conditions(row) if condition.reached is False]
        yield f"{place(row)}: {'; '.join(missed)}"


def place(row: DeviceMeasured) -> str:
    """The row on one line."""
    return place_of(row.case)


def place_of(case: Case) -> str:
    """The case on one line."""
    source = f"{case.source}: " if case.source else ""
    return f"{source}{case.what} {case.size} {case.mode} {case.layout} {case.dtype}"
