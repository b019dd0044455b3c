"""The page: records in, one HTML file out."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from normwright.lab.records import Comparison
from normwright.report.cubes import VIEW_BOX, axis_names, cubes
from normwright.report.curves import learning_section
from normwright.report.escape import json_in_html, script_hash
from normwright.report.files import write_whole
from normwright.report.gradients import gradients_section
from normwright.report.rates import rates
from normwright.report.ribbons import ribbons_section
from normwright.report.sections import batch_sizes, norms_compared
from normwright.report.tables import table
from normwright.report.theme import CONFIG, TEMPLATE

TEMPLATES = resources.files("normwright.report") / "templates"


def render(comparison: Comparison) -> str:
    """The report as one self-contained HTML page, a pure function of the comparison.

    Plotly's script, the styles and all data are in the page; its security policy lets it load nothing
    and run no script but its own. Every name is escaped.
    """
    own_script = _text("report.js")
    return _template().render(
        comparison=comparison,
        batch_sizes=batch_sizes(comparison),
        norms=norms_compared(comparison),
        seeds=max((row.seeds for row in comparison.rows), default=0),
        table=table(comparison),
        learning=learning_section(comparison),
        rates=rates(comparison),
        ribbons=ribbons_section(comparison),
        gradients=gradients_section(comparison),
        cubes=cubes(comparison),
        axis_names=axis_names(),
        view_box=VIEW_BOX,
        style=Markup(_text("report.css")),  # noqa: S704 - the package's own file
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - the plotly package's own file
        script=Markup(own_script),  # noqa: S704 - the package's own file
        script_hashes=f"{script_hash(get_plotlyjs())} {script_hash(own_script)}",
        setup=json_in_html({"template": TEMPLATE.to_plotly_json(), "config": CONFIG}),
    )


def write(comparison: Comparison, path: Path) -> None:
    """Writes the report; at every moment `path` holds a whole report, the old one or the new.

    Raises:
        StoreError: the file cannot be written (no such folder, no room, no permission).
    """
    write_whole(render(comparison), path)


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("report.html.j2"))
