"""Saves a benchmark's findings twice: as Markdown to read, and as JSON to compute with."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any


def save(folder: Path, name: str, markdown: str, records: object) -> None:
    """Writes name.md and name.json; in JSON a number that is not finite is null."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(markdown.rstrip() + "\n")
    (folder / f"{name}.json").write_text(json.dumps(plain(records), indent=1, allow_nan=False) + "\n")


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
