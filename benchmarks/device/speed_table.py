"""The table of measured cases on a device, and what it leaves out and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from benchmarks.device import judgement
from benchmarks.device.bandwidth import copy_bandwidth, fraction, least_copies
from benchmarks.device.measure import DeviceMeasured
from benchmarks.device.rivals import RIVALS
from benchmarks.markdown import bullets, figure, table
from benchmarks.ulps import Error

UNITS = (
    "Times are in copies, `y.copy_(x)` on the same tensors in the same run, medians of runs in turn by "
    "device events around several sets of inputs, whose x together are 8 times the second cache, so that "
    "every tensor comes from memory; the host is given a head start, so that launching is not in the "
    "times. `of copy` is the least traffic over the time, over the copy's bandwidth (GB/s, reads and "
    "writes). Batch norm's least traffic reads its inputs twice, the others' once. `ulps` is the largest "
    "error against float64, in ulps of the largest exact value that shares the element's moment (y, dx, "
    "dresidual) or is in the same vector (dweight, dbias). Batch norm's parameters are float32 beside "
    "half inputs, others have x's dtype."
)

_GRADIENTS = ("dx", "dresidual", "dweight", "dbias")


def speed_table(rows: Sequence[DeviceMeasured]) -> str:
    """A row per case and mode; a column for every contender that any row has."""
    rivals = _rivals(rows)
    head = (
        *("operator", "shape", "layout", "dtype", "run", "copy, GB/s", "least", "of copy", "ours"),
        *(*rivals, "eager/ours", "ulps of y: ours", "eager", "of gradients: ours", "eager", "goal reached"),
    )
    return table(head, [_cells(row, rivals) for row in rows])


def notes(rows: Sequence[DeviceMeasured]) -> str:
    """Whom the device waited for, and which rivals are absent from which rows, and why."""
    waited: dict[str, int] = defaultdict(int)
    absent: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        for name in row.waited:
            waited[name] += 1
        for name, words in row.absent.items():
            absent[name, words].append(judgement.place(row))
    lines = [
        f"{name}: the device waited for the host in {count} rows, whose times hold the host's, too"
        for name, count in waited.items()
    ]
    for (name, words), places in absent.items():
        where = "every row" if len(places) == len(rows) else f"{len(places)} of {len(rows)} rows"
        raised = f", the first: {places[0]}" if words.startswith("raises") else ""
        lines.append(f"{name}: {words}, {where}{raised}")
    return bullets(lines)


def _rivals(rows: Sequence[DeviceMeasured]) -> list[str]:
    names = ("eager", "compiled", *(rival.name for rival in RIVALS))
    return [name for name in names if any(name in row.seconds for row in rows)]


def _cells(row: DeviceMeasured, rivals: Sequence[str]) -> tuple[str, ...]:
    case, seconds = row.case, row.seconds
    copy, ours = seconds["copy"], seconds["ours"]
    what = f"{case.source}: {case.what}" if case.source else case.what
    return (
        *(what, case.size, case.layout, case.dtype, case.mode),
        *(f"{copy_bandwidth(case, copy) / 1e9:.0f}", figure(least_copies(case), 1)),
        *(f"{fraction(case, ours, copy):.0%}", figure(ours / copy)),
        *(_copies(row, name) for name in rivals),
        figure(seconds["eager"] / ours if "eager" in seconds else None),
        *(_largest(row, results, name) for results in (("y",), _GRADIENTS) for name in ("ours", "eager")),
        judgement.cell(row),
    )


def _copies(row: DeviceMeasured, name: str) -> str:
    if name in row.seconds:
        return figure(row.seconds[name] / row.seconds["copy"])
    return "raises" if row.absent.get(name, "").startswith("raises") else ""


def _largest(row: DeviceMeasured, results: Sequence[str], name: str) -> str:
    if row.case.mode != "step" and results is _GRADIENTS:
        return ""
    errors = [row.errors[result][name].largest for result in results if name in row.errors.get(result, {})]
    return Error.text(max(errors)) if errors else ""
