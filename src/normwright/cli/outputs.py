"""What a command leaves: the files that it is to write, looked at before the work, and its exit status."""

from __future__ import annotations

import os
from pathlib import Path

from normwright.cli.options import any_of
from normwright.errors import OptionError

#: The exit status where what --fail-on or --fail-on-shift looks for was found; 1 is an error, 2 wrong usage.
FOUND = 3


def check_output(
    option: str, path: Path, endings: tuple[str, ...], *, why_not: str = "", replace: bool
) -> None:
    """Says before the work what would be said after it.

    Args:
        option: that names the file.
        path: the file.
        endings: those that it may have.
        why_not: why no others, to end the sentence.
        replace: whether a file that is there may be replaced.
    Raises:
        OptionError: the file cannot be written as it is asked for.
    """
    if path.suffix not in endings:
        raise OptionError(f"{option} must end in {any_of(endings)}, but is {path}{why_not}")
    if path.is_dir():
        raise OptionError(f"{option} must be a file, but {path} is a folder")
    # Of links that lead to one another, one stays.
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OptionError(f"{option} must be a file, but {path} is a link that leads to itself: remove it")
    if not target.parent.is_dir():
        folder = target.parent if path.is_symlink() else path.parent
        raise OptionError(f"{option} must be in a folder that exists, but {folder} does not: make it")
    if path.exists() and not replace:
        raise OptionError(f"{path} exists: choose another {option}, or replace it by --force")
