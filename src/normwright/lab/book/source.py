"""The text of what a claim measures by: its own file, and the modules of the book that it draws on."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from importlib import import_module

# Modules of these packages count, where a claim imports them or what it imports does.
_PACKAGES = ("normwright.lab.book", "normwright.lab.claims")

# Its classes say what a claim is, and measure nothing.
_LEFT_OUT = "normwright.lab.book.claim"


@cache
def source_of(module: str) -> str:
    """The text of a claim's module and of all that it measures by, module by module.

    It is read once, so that a file which its author edits meanwhile is not taken for what runs. What words,
    judges and draws is imported by no claim, and so has no part in it.
    """
    texts = {module: _text(module)}
    left = [module]
    while left:
        for name in _imported(texts[left.pop()]):
            if name not in texts and name != _LEFT_OUT:
                texts[name] = _text(name)
                left.append(name)
    return "\n".join(f"# {name}\n{texts[name]}" for name in sorted(texts))


def _text(module: str) -> str:
    return inspect.getsource(import_module(module))


def _imported(text: str) -> Iterator[str]:
    """The modules of the packages that a text imports, at its head or within a function."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module in _PACKAGES:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from (name for name in names if name.startswith(tuple(f"{own}." for own in _PACKAGES)))
