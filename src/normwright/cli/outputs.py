"""What a command leaves: the files that it is to write, looked at before the work, and its exit status."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from normwright.cli.options import any_of
from normwright.errors import OptionError, StoreError

#: The exit status where what --fail-on or --fail-on-shift looks for was found; 1 is an error, 2 wrong usage.
FOUND = 3


def folder(text: str | Path) -> Path:
    """The folder that an option names: a `Path` of no text would be the folder that one is in."""
    if not str(text):
        raise typer.BadParameter("a folder must be named, but the name is empty")
    return Path(text)


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
    from normwright.lab.store.whole import followed

    if path.suffix not in endings:
        raise OptionError(f"{option} must end in {any_of(endings)}, but is {path}{why_not}")
    if path.is_dir():
        raise OptionError(f"{option} must be a file, but {path} is a folder")
    try:
        folder = followed(path).parent
    except StoreError as error:
        raise OptionError(f"{option}: {error}") from error
    if not folder.is_dir():
        raise OptionError(f"{option} must be in a folder that exists, but {folder} does not: make it")
    try:
        # Rights alone do not tell of a folder that is mounted to be read, nor of one of /proc.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OptionError(
            f"{option} must be in a folder that can be written, but {folder} cannot be ({error.strerror}): "
            "choose another"
        ) from error
    if path.exists() and not replace:
        raise OptionError(f"{path} exists: choose another {option}, or replace it by --force")
