"""What lies where a file is wanted and is none: to open it may wait for ever, to replace it would do harm."""

from __future__ import annotations

import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def irregular(path: Path) -> str | None:
    """A pipe, a socket or a device, in words; None for a file, a folder and where nothing is.

    Example:
        >>> irregular(Path("/dev/null")), irregular(Path("/"))
        ('a device', None)
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # of which the opening tells
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)
