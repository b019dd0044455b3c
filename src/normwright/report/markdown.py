"""The table of a comparison, its verdicts and its command as Markdown."""

from __future__ import annotations

import re

from normwright.lab.records import Comparison
from normwright.network.counting import how_many
from normwright.report import quantities
from normwright.report.palette import Style, style_of
from normwright.report.tables import TableRow, table

LEGEND = (
    "In brackets, the 95 % interval over the seeds. Steps are training steps until the validation split is "
    "at the target, speed-up is the steps of no normaliser over a normaliser's own, diverged is the share "
    f"over all learning rates. {quantities.TIMES} Bold is the winner, where one is named: one that three "
    "seeds or more tell from every other; for accuracy, beyond the luck of the test set, sample by sample, "
    "and from guessing too."
)

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$&])")


def to_markdown(comparison: Comparison) -> str:
    """The comparison as GitHub-flavoured Markdown; every name is escaped.

    A missing value is a dash; the 95 % interval over seeds stands in brackets, where there is one.
    """
    title = f"# {literal(comparison.network)} on {literal(comparison.data)}"
    verdicts = [f"**Batch size {size}.** {literal(words)}" for size, words in comparison.verdicts]
    made = (
        f"{how_many(comparison.runs, 'run')} of {quantities.length(comparison)} each, on "
        f"{literal(comparison.machine)}, made by"
    )
    return (
        "\n\n".join([title, _table(comparison), LEGEND, *verdicts, made, fenced(comparison.command)]) + "\n"
    )


def time_ratios(comparison: Comparison) -> dict[tuple[Style, int], str]:
    """Time per step over that of no normaliser, by style and batch size; a dash where one is missing."""
    none = {row.batch_size: row.milliseconds for row in comparison.rows if row.norm == "none"}
    ratios = {}
    for row in comparison.rows:
        base = none.get(row.batch_size)
        ratio = row.milliseconds / base if row.milliseconds and base else None
        ratios[style_of(row.norm), row.batch_size] = quantities.times(ratio)
    return ratios


def _table(comparison: Comparison) -> str:
    ratios = time_ratios(comparison)
    heads = (
        "Normaliser",
        "Batch size",
        "Best lr",
        f"Test {literal(comparison.metric)}",
        f"Steps to {comparison.target:g}",
        "Speed-up",
        "Diverged",
        "ms / step",
        "÷ none",
        "Memory, MiB",
    )
    rows = [
        _cells(group.batch_size, row, ratios[row.style, group.batch_size])
        for group in table(comparison)
        for row in group.rows
    ]
    rule = ("---", *("---:" for _ in heads[1:]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def _cells(batch_size: int, row: TableRow, ratio: str) -> tuple[str, ...]:
    name = f"**{row.style.label}**" if row.best else row.style.label
    return (
        f"{name} ({row.note})" if row.note else name,
        str(batch_size),
        row.lr,
        _with_range(row.test, row.test_range),
        _with_range(row.steps, row.steps_range),
        _with_range(row.ratio, row.ratio_range),
        row.diverged,
        row.milliseconds,
        ratio,
        row.memory,
    )


def _with_range(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def literal(words: str) -> str:
    r"""Words that Markdown shows as they are, on one line.

    Example:
        >>> print(literal("a|b*\nc"))
        a\|b\* c
    """
    return _SPECIAL.sub(r"\\\1", " ".join(words.split()))


def fenced(line: str) -> str:
    """A block of code whose fence is longer than any row of backticks in it."""
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{line}\n{fence}"
