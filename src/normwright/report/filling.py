"""Fills the templates of a page, which holds its scripts and styles and may run nothing else."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from normwright.report.escape import json_in_html, script_hash
from normwright.report.theme import CONFIG, TEMPLATE

TEMPLATES = resources.files("normwright.report") / "templates"
STYLE = "report.css"


def filled(template: str, *, styles: tuple[str, ...] = (), **values: Any) -> str:
    """The template as text, with the values and with what every page holds; every value is escaped.

    Args:
        template: a file among the templates.
        styles: more style sheets among them, beside the one of every page.
        values: by the names that the template uses.
    """
    script = _text("report.js")
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup("".join(map(_text, (STYLE, *styles)))),  # noqa: S704 - the package's own files
            plotly=Markup(get_plotlyjs()),  # noqa: S704 - the plotly package's own file
            script=Markup(script),  # noqa: S704 - the package's own file
            script_hashes=f"{script_hash(get_plotlyjs())} {script_hash(script)}",
            setup=json_in_html({"template": TEMPLATE.to_plotly_json(), "config": CONFIG}),
            **values,
        )
    )


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
