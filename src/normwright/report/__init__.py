"""One self-contained HTML page from the records of a comparison or a diagnosis.

`render` gives the page as text, `write` puts it into a file. The page is a pure function of the
records: the same records give the same text. It asks for nothing from any network.
"""

from __future__ import annotations

from normwright.errors import MissingExtraError

try:
    from normwright.report.any_page import render, write
except ModuleNotFoundError as missing:
    package = (missing.name or "").partition(".")[0]
    if package not in ("jinja2", "markupsafe", "plotly"):
        raise
    raise MissingExtraError(
        f"the report needs the package {package!r}, which is not installed: pip install 'normwright[lab]'"
    ) from missing

__all__ = ["render", "write"]
