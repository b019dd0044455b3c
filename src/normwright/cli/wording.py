"""Messages that were written for Python, in the words of the command line.

In a message for Python an argument stands as in a call, `names=`. A command has an option in its place.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import typer

T = TypeVar("T")

# What commands call by another name, and what only Python has.
_OTHERWISE = {"calibrate": "--data"}
_IN_PYTHON_ALONE = ("forward_fn", "layers", "scores_of", "process_group", "inplace")

# Without a value behind it, as `groups=2` in the description of a module has.
_ARGUMENT = re.compile(r"\b([a-z_]+)=(?:True\b)?(?![\w'\"(\[{-])")


def unwrapped(docstring: str | None) -> str:
    """A docstring as a command's help: each paragraph on one line, for Rich keeps the breaks of the source.

    Example:
        >>> unwrapped("Find it.\\n\\n    In all\\n    places.\\n    ")
        'Find it.\\n\\nIn all places.'
    """
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)


def options_of(context: typer.Context) -> dict[str, str]:
    """The options of a command, by the names of the arguments that they become."""
    named = {parameter.name or "": parameter.opts[0] for parameter in context.command.params}
    return {**_OTHERWISE, **{name: opt for name, opt in named.items() if opt.startswith("--")}}


def in_options(message: T, options: Mapping[str, str]) -> T:
    """A message with the command's options for Python's arguments; or tuples, lists or mappings of messages.

    Example:
        >>> in_options("leave it out with names=, or pass layers=", {"names": "--names"})
        'leave it out with --names, or pass layers= (in Python alone)'
    """

    def option(found: re.Match[str]) -> str:
        if found[1] in options:
            return options[found[1]]
        return f"{found[0]} (in Python alone)" if found[1] in _IN_PYTHON_ALONE else found[0]

    translated: Any = message
    if isinstance(message, str):
        translated = _ARGUMENT.sub(option, message)
    elif isinstance(message, Mapping):
        translated = {name: in_options(part, options) for name, part in message.items()}
    elif isinstance(message, list | tuple):
        translated = type(message)(in_options(part, options) for part in message)
    same: T = translated
    return same
