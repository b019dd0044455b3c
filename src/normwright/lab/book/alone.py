"""One process at a time in a book's folder: what is measured there is measured with nothing beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normwright.errors import StoreError
from normwright.lab.store.file import fault

if sys.platform != "win32":  # which has no such locks: there, the user alone sees to it
    import fcntl

LOCK = ".running"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds the folder, made where there is none; the hold ends with the process, however that ends.

    Raises:
        StoreError: another process holds it, or it cannot be written to.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except FileExistsError as error:
        raise StoreError(f"{folder} must be a folder, but is a file: choose another --out") from error
    except OSError as error:
        raise fault(path, error) from error
    with file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as held:
                raise StoreError(
                    f"one process at a time must run claims in a folder, but another runs some in {folder}: "
                    "wait until it ends, or choose another --out"
                ) from held
            except OSError:
                pass  # a file system without locks
        yield
