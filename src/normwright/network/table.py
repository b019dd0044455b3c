"""A table of words: what a report prints, on whatever it is printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows under columns, with a sentence above and notes below.

    Args:
        summary: one sentence that says what was done to how many.
        columns: their names.
        rows: each as many cells as there are columns; "" where there is nothing to say.
        notes: sentences that belong to the whole.

    Example:
        >>> print(Table("1 of 2 folded.", ("layer", "into", "why not"), (("bn", "conv", ""),)))
        1 of 2 folded.
        layer  into
        bn     conv
    """

    summary: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.summary, *aligned((self.columns, *self.rows), heads=1), *self.notes])


def aligned(rows: tuple[tuple[str, ...], ...], *, heads: int = 0) -> list[str]:
    """One line a row, cells below each other; a column without a word below its heads is left out.

    Args:
        rows: of equal length, the heads first.
        heads: how many rows at the top are heads.
    Returns:
        As many lines as rows; none where there is nothing below the heads.
    """
    if len(rows) <= heads:
        return []
    columns = [column for column in zip(*rows, strict=True) if any(column[heads:])]
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
