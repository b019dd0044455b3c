"""Writes a text so that its file is whole at every moment: the old one or the new."""

from __future__ import annotations

from pathlib import Path

from normwright.lab.store.text import encodable
from normwright.lab.store.whole import write_whole as write_bytes


def write_whole(text: str, path: Path) -> None:
    """Writes a text, in UTF-8 and with Unix line ends.

    Raises:
        StoreError: the file cannot be written (no such folder, no room, no permission); no draft is left.
    """
    write_bytes(path, encodable(text).encode())
