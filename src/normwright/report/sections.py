"""What a section of the page holds: views to choose from, each with its panels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from normwright.lab.records import Comparison
from normwright.report.escape import json_in_html
from normwright.report.palette import Style, style_of


@dataclass(frozen=True)
class Panel:
    """One figure: Plotly's description of it, and what a reader who cannot see it is told."""

    figure: Any
    alt: str

    @property
    def json(self) -> Markup:
        """The figure without the template, which the page holds once."""
        parts = self.figure.to_plotly_json()
        parts["layout"].pop("template", None)
        return json_in_html(parts)


@dataclass(frozen=True)
class View:
    """What is shown for one batch size, where there are several, and for one layer where there are layers."""

    batch_size: int | None
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()
    layer: str | None = None

    @property
    def heading(self) -> str:
        """What is chosen, in words."""
        size = "" if self.batch_size is None else f"Batch size {self.batch_size}"
        layer = "" if self.layer is None else f"layer {self.layer}"
        return ", ".join(filter(None, (size, layer)))


@dataclass(frozen=True)
class Section:
    """The views of one section; `empty` says why there are none."""

    views: tuple[View, ...]
    empty: str = ""

    @property
    def batch_sizes(self) -> tuple[int | None, ...]:
        """What the batch-size selector offers."""
        return tuple(dict.fromkeys(view.batch_size for view in self.views))

    @property
    def layers(self) -> tuple[str, ...]:
        """What the layer selector offers."""
        return tuple(dict.fromkeys(view.layer for view in self.views if view.layer is not None))


def batch_sizes(comparison: Comparison) -> tuple[int, ...]:
    """The batch sizes compared, in the order asked for."""
    return tuple(dict.fromkeys(row.batch_size for row in comparison.rows))


def norms_compared(comparison: Comparison) -> tuple[str, ...]:
    """The normalisers compared, in the order asked for."""
    return tuple(dict.fromkeys(row.norm for row in comparison.rows))


def labels(norms: tuple[str, ...]) -> str:
    """The normalisers as they stand in a sentence.

    Example:
        >>> labels(("none", "batch", "rms"))
        'none, batch and RMS'
    """
    names = [style_of(norm).label for norm in norms]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1] if names else "")))


def nothing(comparison: Comparison, because: str) -> Section:
    """A section without views: every run diverged, or else `because`."""
    if all(row.lr is None for row in comparison.rows):
        because = "every run diverged"
    return Section((), empty=f"There is nothing to draw here: {because}.")


def absent(comparison: Comparison, batch_size: int, drawn: set[str], what: str) -> tuple[str, ...]:
    """A note on the normalisers of this batch size that have nothing to draw, if any."""
    missing = tuple(r.norm for r in comparison.rows if r.batch_size == batch_size and r.norm not in drawn)
    if not missing:
        return ()
    diverged = {r.norm for r in comparison.rows if r.batch_size == batch_size and r.lr is None}
    why = "every run diverged" if set(missing) <= diverged else "nothing was recorded"
    return (f"Not drawn: {labels(missing)}, for which {why}; there is no {what} to show.",)


def legend_entry(norm: str) -> tuple[Style, dict[str, Any]]:
    """A normaliser's style, and the keys by which all its traces answer to one legend entry."""
    style = style_of(norm)
    return style, {"name": style.label, "legendgroup": norm}
