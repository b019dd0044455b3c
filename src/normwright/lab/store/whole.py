"""Writes a file so that it is whole at every moment: the old one or the new."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from normwright.errors import StoreError
from normwright.lab.store.irregular import irregular

if sys.platform != "win32":  # which has no such locks, and removes no file that a process has open
    import fcntl


def followed(path: Path) -> Path:
    """Where a file lies or shall lie: what a link leads to, which stays a link.

    Raises:
        StoreError: it is a pipe, a socket or a device; a link leads to itself, or into a folder that does
            not exist.
    """
    kind = irregular(path)
    if kind is not None:
        raise StoreError(f"{path} must be a file, but is {kind}: name a file")
    if not path.is_symlink():
        return path
    # Of links that lead to one another, one stays.
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise StoreError(f"{path} must be a file, but is a link that leads to itself: remove it")
    if not target.parent.is_dir():
        raise StoreError(
            f"{path} must be in a folder that exists, but is a link into {target.parent}, which does not: "
            "make it, or remove the link"
        )
    return target


def write_whole(path: Path, content: bytes) -> None:
    """Writes a draft beside the file, brings it to the disk, and renames it; a link stays one.

    Two that write one file at a time do so in drafts of their own: the last to end wins, whole. Drafts that
    processes left which were killed meanwhile are removed.

    Raises:
        StoreError: the file cannot be written (no such folder, no room, no permission); no draft is left.
    """
    target = followed(path)
    try:
        _remove_abandoned(target)
        with _draft_of(target) as (draft, file):
            _fill(file, content)
            if os.name == "nt":
                file.close()  # Windows renames no open file, and has no lock to lose
            _take_place(draft, target)
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
            _fill(file, content)
        _take_place(draft, path)
    finally:
        _remove(draft)


def _fill(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _take_place(draft: Path, path: Path) -> None:
    os.replace(draft, path)
    _sync_folder(path.parent)


@contextmanager
def _draft_of(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new draft, locked as long as it is open: the lock ends with the process, however that ends."""
    while True:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with draft.open("xb") as file:
                _lock(file, wait=True)
                if draft.exists():  # else another process found it before it was locked
                    yield draft, file
                    return
        finally:
            _remove(draft)


def _remove_abandoned(path: Path) -> None:
    """Removes the drafts of a file that nobody has locked."""
    name = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.tmp")
    try:
        drafts = [file for file in path.parent.iterdir() if name.fullmatch(file.name)]
    except OSError:
        return  # no such folder, of which the writing tells, or one whose files are not to be listed
    for draft in drafts:
        try:
            with draft.open("rb") as file:
                if _lock(file, wait=False):
                    draft.unlink()
        except OSError:
            continue  # gone meanwhile, or another user's


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Whether the file is locked now: not where another process has it, or the file system has no locks."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


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
