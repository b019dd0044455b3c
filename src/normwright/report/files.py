"""Writes a file so that it is whole at every moment: the old one or the new."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from normwright.errors import StoreError


def write_whole(text: str, path: Path) -> None:
    """Writes text to a draft beside the file, brings it to the disk, and renames it.

    Raises:
        StoreError: the file cannot be written (no such folder, no room, no permission); no draft is left.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # same folder: a rename is atomic
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StoreError(
            f"{path} must be in a folder that exists and has room, but cannot be written "
            f"({error.strerror or error}): make room or choose another folder"
        ) from error
