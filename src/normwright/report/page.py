"""The page: records in, one HTML file out."""

from __future__ import annotations

from pathlib import Path

from normwright.lab.records import Comparison
from normwright.report.cubes import VIEW_BOX, axis_names, cubes
from normwright.report.curves import learning_section
from normwright.report.files import write_whole
from normwright.report.filling import filled
from normwright.report.gradients import gradients_section
from normwright.report.quantities import TIMES, length
from normwright.report.rates import rates
from normwright.report.ribbons import ribbons_section
from normwright.report.sections import batch_sizes, norms_compared
from normwright.report.tables import table


def render(comparison: Comparison) -> str:
    """The report as one self-contained HTML page, a pure function of the comparison.

    Plotly's script, the styles and all data are in the page; its security policy lets it load nothing
    and run no script but its own. Every name is escaped.
    """
    return filled(
        "report.html.j2",
        comparison=comparison,
        batch_sizes=batch_sizes(comparison),
        norms=norms_compared(comparison),
        seeds=max((row.seeds for row in comparison.rows), default=0),
        length=length(comparison),
        table=table(comparison),
        times=TIMES,
        learning=learning_section(comparison),
        rates=rates(comparison),
        ribbons=ribbons_section(comparison),
        gradients=gradients_section(comparison),
        cubes=cubes(comparison),
        axis_names=axis_names(),
        view_box=VIEW_BOX,
    )


def write(comparison: Comparison, path: Path) -> None:
    """Writes the report; at every moment `path` holds a whole report, the old one or the new.

    Raises:
        StoreError: the file cannot be written (no such folder, no room, no permission).
    """
    write_whole(render(comparison), path)
