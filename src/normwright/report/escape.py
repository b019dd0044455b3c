"""Keeps names text: in Plotly's labels, in JSON within a page, and in the page's script policy."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any

from markupsafe import Markup
from plotly.utils import PlotlyJSONEncoder


def plotly_text(name: str) -> str:
    """A name as Plotly shows it literally; Plotly reads a small HTML in every label, and %{…} in hover.

    Example:
        >>> plotly_text("<b>&</b>")
        '&lt;b&gt;&amp;&lt;/b&gt;'
    """
    return html.escape(name, quote=False).replace("%{", "%\u200b{")


def json_in_html(value: Any) -> Markup:
    r"""JSON that may stand inside a <script> element: no character in it can end the element.

    Non-finite numbers become null.

    Example:
        >>> str(json_in_html("</script>"))
        '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, cls=PlotlyJSONEncoder, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - every character that HTML reads has just been replaced


def script_hash(script: str) -> str:
    """The source expression that lets a content security policy run this very script and no other."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
