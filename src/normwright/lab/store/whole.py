"""Writes a file so that it is whole at every moment: the old one or the new."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from normwright.errors import StoreError


def write_whole(path: Path, content: bytes) -> None:
    """Writes a draft beside the file, brings it to the disk, and renames it.

    Two that write one file at a time do so in drafts of their own: the last to end wins, whole.

    Raises:
        StoreError: the file cannot be written (no such folder, no room, no permission); no draft is left.
    """
    try:
        write_by_draft(path, content, path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp"))
    except OSError as error:
        raise StoreError(
            f"{path} must be in a folder that exists and has room, but cannot be written "
            f"({error.strerror or error}): make room or choose another folder"
        ) from error


def write_by_draft(path: Path, content: bytes, draft: Path) -> None:
    """Does so by a draft of the given name, which must be in the same folder: a rename is atomic there.

    Raises:
        OSError: what the system finds; the draft is removed.
    """
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        _sync_folder(path.parent)
    finally:
        _remove(draft)


def _sync_folder(folder: Path) -> None:
    """Waits until the folder's list of files is on the disk."""
    if os.name == "nt":
        return  # Windows opens no folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(draft: Path) -> None:
    try:
        draft.unlink(missing_ok=True)
    except OSError:
        return  # the folder is gone or unwritable, which the first error already says
