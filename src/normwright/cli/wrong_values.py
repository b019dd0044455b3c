"""What is said of a value that an option cannot take: Typer leaves out what came, or speaks of Pydantic."""

from __future__ import annotations

import re
from typing import Any

import typer

from normwright.cli.options import any_of

_KINDS = {"int_parsing": "a whole number", "float_parsing": "a number"}
_CHOICE = re.compile(r"Value error, .* is not one of (.*)\.", re.DOTALL)


def in_words(error: typer.BadParameter) -> str:
    """The message of a wrong value: what it must be, and what came.

    Args:
        error: Typer's, made from one of Pydantic's; of any other the message stays.
    """
    cause: Any = error.__cause__
    if not hasattr(cause, "errors"):
        return str(error.message)
    wrong = cause.errors()[0]
    choice = _CHOICE.fullmatch(wrong["msg"])
    wanted = any_of(tuple(re.findall("'(.*?)'", choice[1]))) if choice else _KINDS.get(wrong["type"])
    if wanted is None:
        return str(error.message)
    return f"it must be {wanted}, but is {wrong['input']!r:.80}"
