"""A comparison on the terminal: the tables, the verdicts, and where the report is."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from normwright.lab.records import Comparison
from normwright.report.comparison import REPORT, TABLE
from normwright.report.markdown import time_ratios
from normwright.report.quantities import MISSING
from normwright.report.tables import TableGroup, table

_LEGEND = "Below a value stands its 95 % interval over the seeds; below ms per step, its ratio to none."


def print_results(comparison: Comparison, out: Path, console: Console) -> None:
    """Prints a table and a verdict for each batch size, then the paths of the files."""
    verdicts = dict(comparison.verdicts)
    for group in table(comparison):
        console.print()
        console.print(
            Text(f"{comparison.network} on {comparison.data}, batch size {group.batch_size}", "bold")
        )
        console.print(_table(comparison, group))
        for row in group.rows:
            if row.note:
                console.print(Text(f"{row.style.label}: {row.note}", "dim"))
        console.print(Text(verdicts[group.batch_size]))
    console.print()
    console.print(Text(_LEGEND, "dim"))
    # Not wrapped, so that a path can be copied, or clicked in terminals that find paths.
    console.print(Text(f"report: {out / REPORT}"), soft_wrap=True)
    console.print(Text(f"table:  {out / TABLE}"), soft_wrap=True)


def _table(comparison: Comparison, group: TableGroup) -> Table:
    ratios = time_ratios(comparison)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("norm")
    # In two lines each, so that the intervals decide the widths and the table fits 80 columns.
    heads = ("best\nlr", f"test\n{_last(comparison.metric)}", f"steps\nto {comparison.target:g}")
    for head in (*heads, "speed-up", "diverged", "ms per\nstep", "MiB"):
        shown.add_column(head, justify="right")
    for row in group.rows:
        shown.add_row(
            Text(row.style.label, "bold green" if row.best else ""),
            row.lr,
            _with_range(row.test, row.test_range),
            _with_range(row.steps, row.steps_range),
            _with_range(row.ratio, row.ratio_range),
            Text(row.diverged, "red" if row.any_diverged else ""),
            _with_range(row.milliseconds, ratios[row.style, group.batch_size]),
            row.memory,
        )
    return shown


def _with_range(value: str, below: str) -> Text:
    """A value, and its interval in the line below."""
    text = Text(value)
    return text.append(f"\n{below.replace(' – ', '–')}", "dim") if below not in ("", MISSING) else text


def _last(metric: str) -> str:
    """The name of a metric without the file of a user's own."""
    return metric.rpartition(":")[2]
