"""The pages of `normwright batch-size` and `normwright lr`: records in, one HTML file out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from normwright.lab.batch_size.records import BatchSizes
from normwright.lab.lr_range.records import LearningRates
from normwright.network.counting import how_many
from normwright.network.table import Table
from normwright.report.files import write_whole
from normwright.report.filling import filled
from normwright.report.rate_figures import rate_panels
from normwright.report.sections import Panel
from normwright.report.size_figures import size_panels


@dataclass(frozen=True)
class Part:
    """One section of a page.

    Args:
        key: its anchor.
        title: its heading, and its entry in the navigation.
        text: what there is to see.
        panels: figures.
        table: a table below them, or None.
        best: the first cell of the row that stands out.
    """

    key: str
    title: str
    text: str
    panels: tuple[Panel, ...] = ()
    table: Table | None = None
    best: str = ""


@dataclass(frozen=True)
class Advice:
    """One page, in words.

    Args:
        command: that made it.
        question: its title.
        network, data, setting: what was looked at.
        answer: the recommendation.
        why: one sentence.
        notes: below it.
        parts: the sections.
    """

    command: str
    question: str
    network: str
    data: str
    setting: str
    answer: str
    why: str
    notes: tuple[str, ...]
    parts: tuple[Part, ...]


def render_batch_sizes(found: BatchSizes) -> str:
    """The page of a batch-size search as one self-contained HTML file; every name is escaped."""
    table = found.table()
    curves = Part(
        "curves",
        "Curves",
        "Samples per second with their 95 % intervals, what a step needs of memory, and how much the moments "
        "of batch norm differ from mini-batch to mini-batch. The filled mark is the size to take.",
        size_panels(found),
    )
    sizes = Part(
        "sizes",
        "Sizes",
        "Every size that was run, and why others were not.",
        table=_without_blank(table),
        best=f"{found.recommended:,}",
    )
    return filled(
        "advice.html.j2",
        advice=Advice(
            "normwright batch-size",
            "Which batch size",
            found.network,
            found.data,
            f"Training steps on {found.device}, at {len(found.trials)} batch sizes.",
            f"{found.recommended:,}",
            found.why,
            table.notes,
            (curves, sizes, *_layers(found)),
        ),
    )


def render_learning_rates(found: LearningRates) -> str:
    """The page of a learning-rate range test as one self-contained HTML file; every name is escaped."""
    table = found.table()
    curves = Part(
        "curves",
        "Curves",
        "The smoothed loss of the next mini-batch after one step at each rate; a line is the mean over "
        "seeds, its band goes from the lowest to the highest. The shaded rates are usable at every seed.",
        rate_panels(found),
    )
    ranges = Part(
        "ranges",
        "Ranges",
        "The loss falls from the first rate on, falls most at the steepest, and rises again after the last.",
        table=table,
    )
    return filled(
        "advice.html.j2",
        advice=Advice(
            "normwright lr",
            "Which learning rate",
            found.network,
            found.data,
            f"A range test at batch size {found.batch_size:,} on {found.device}, "
            f"{how_many(len(found.ranges[0].curves), 'seed')}.",
            "none" if found.recommended is None else f"{found.recommended:.3g}",
            found.why,
            found.notes,
            (curves, ranges),
        ),
    )


def write_batch_sizes(found: BatchSizes, path: Path) -> None:
    """Writes the page; at every moment `path` holds a whole page, the old one or the new.

    Raises:
        StoreError: the file cannot be written (no such folder, no room, no permission).
    """
    write_whole(render_batch_sizes(found), path)


def write_learning_rates(found: LearningRates, path: Path) -> None:
    """Writes the page; see `write_batch_sizes`."""
    write_whole(render_learning_rates(found), path)


def _without_blank(table: Table) -> Table:
    """The table without its marks, and without columns that hold no word."""
    kept = [place for place in range(1, len(table.columns)) if any(row[place] for row in table.rows)]
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    return Table("", tuple(table.columns[place] for place in kept), rows)


def _layers(found: BatchSizes) -> tuple[Part, ...]:
    """The noise of each normaliser at the size to take."""
    noise = next(trial.noise for trial in found.trials if trial.batch_size == found.recommended)
    if noise is None:
        return ()
    columns = ("normaliser", "elements m", "mean noise", "1/√m", "variance noise", "√(2/(m−1))")
    rows = tuple(
        (
            layer.name or "(network)",
            f"{layer.elements:,}",
            f"{layer.mean:.2g} σ",
            f"{layer.mean_expected:.2g}",
            f"{layer.variance:.2g}",
            f"{layer.variance_expected:.2g}",
        )
        for layer in noise.layers
    )
    text = (
        f"Over {noise.batches} mini-batches of {found.recommended:,}. The expected noise is that of m "
        "independent elements. Those of one sample are not: where they are alike there is more noise, where "
        "they make up for each other, less."
    )
    return (Part("layers", "Layers", text, table=Table("", columns, rows)),)
