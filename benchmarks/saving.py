"""Saves a benchmark's findings twice: as Markdown to read, and as JSON to compute with."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any


def save(folder: Path, name: str, markdown: str, records: object) -> None:
    """Writes name.md and name.json, each whole or not at all; in JSON a number that is not finite is null."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{name}.md", markdown.rstrip() + "\n")
    _write(folder / f"{name}.json", json.dumps(plain(records), indent=1, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    """Writes the file beside its place first: who is stopped meanwhile keeps the file that was there."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text)
    unfinished.replace(path)


def plain(value: Any) -> Any:
    """Records, tuples and mappings as JSON knows them.

    Example:
        >>> plain({"a": (1, float("inf"))})
        {'a': [1, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
