"""Which files of a user's own a Python file is made of: itself, and what it imports from beside it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path


def own_sources(path: Path, root: Path) -> list[Path]:
    """The file, and every file below `root` that it imports, directly or through another.

    Imports are read, not run, so that the answer does not depend on what a process has imported before.
    An import by a computed name is not seen.

    Args:
        path: a Python file that can be parsed.
        root: the folder that its absolute imports are looked up in.
    Returns:
        Paths, sorted.
    """
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported(file, root)
    return sorted(found)


def parsed(source: bytes) -> ast.Module:
    """The tree of a source; an empty one where it cannot be parsed. Running it will say so, and warn."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _imported(file: Path, root: Path) -> Iterator[Path]:
    try:
        tree = parsed(file.read_bytes())
    except OSError:
        return  # running it will say so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else root
            module = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _files(base, [*module, alias.name])


def _files(base: Path, parts: list[str]) -> Iterator[Path]:
    """The modules and packages on the way to base/parts, as far as they are files."""
    for length in range(1, len(parts) + 1):
        stem = base.joinpath(*parts[:length])
        for candidate in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
            if candidate.is_file():
                yield candidate
