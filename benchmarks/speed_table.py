"""The tables of measured cases, and the verdict that ends them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.headline import HEADLINE
from benchmarks.least import least
from benchmarks.markdown import bullets, figure, table
from benchmarks.measure import Failed, Measured
from benchmarks.ulps import Error

COLUMNS = (
    *("operator", "shape", "layout", "dtype", "run", "threads"),
    *("ours", "eager", "compiled", "least", "ours/eager", "ours/compiled"),
    *("ulps of y: ours", "eager", "of gradients: ours", "eager"),
)
GOALS = ("eager then", "compiled then", "reach", "reached")

UNITS = (
    "Times are in copies, medians of alternating runs. `ulps` is the largest error against the float64 "
    "reference, in ulps of the largest exact value that shares the element's moment (y, dx, dresidual) or is "
    "in the same vector (dweight, dbias)."
)


def speed_table(rows: Sequence[Measured | Failed]) -> str:
    """A table of one set; the headline's rows carry the figures that they are judged by."""
    measured = [row for row in rows if isinstance(row, Measured)]
    judged = any(row.case in HEADLINE for row in measured)
    head = (*COLUMNS, *GOALS) if judged else COLUMNS
    return table(head, [_cells(row) + (_goal_cells(row) if judged else ()) for row in measured])


def verdict(rows: Sequence[Measured | Failed]) -> str:
    """Which cases are slower than eager PyTorch, and which raised."""
    measured = [row for row in rows if isinstance(row, Measured)]
    failed = [row for row in rows if isinstance(row, Failed)]
    slower = sorted(
        (row for row in measured if row.ours_to["eager"] > 1.0), key=lambda row: -row.ours_to["eager"]
    )
    if slower:
        lines = [f"**Slower than eager: {len(slower)} of {len(measured)} cases**", ""]
        lines.append(bullets(f"{row.ours_to['eager']:.2f} {row.case.label}" for row in slower))
    else:
        lines = [f"**No shape slower than eager: {len(measured)} cases**"]
    if failed:
        lines += ["", f"**Failed: {len(failed)} cases**", ""]
        lines.append(bullets(f"{row.case.label}: {row.reason}" for row in failed))
    return "\n".join(lines)


def _cells(row: Measured) -> tuple[str, ...]:
    case = row.case
    what = f"{case.source}: {case.what}" if case.source else case.what
    return (
        *(what, case.size, case.layout, case.dtype, case.mode, str(case.threads)),
        *(figure(row.copies.get(name)) for name in ("ours", "eager", "compiled")),
        str(least(case)),
        *(figure(row.ours_to.get(name)) for name in ("eager", "compiled")),
        *(_largest(row, results, name) for results in _RESULTS for name in ("ours", "eager")),
    )


_RESULTS = (("y",), ("dx", "dresidual", "dweight", "dbias"))


def _largest(row: Measured, results: Sequence[str], name: str) -> str:
    errors = [row.errors[result][name].largest for result in results if result in row.errors]
    return Error.text(max(errors)) if errors else ""


def _goal_cells(row: Measured) -> tuple[str, ...]:
    goal = HEADLINE.get(row.case)
    if goal is None:
        return ("",) * len(GOALS)
    reached = "yes" if row.copies["ours"] <= goal.reach else "no"
    return (figure(goal.eager, 1), figure(goal.compiled, 1), figure(goal.reach, 1), reached)
