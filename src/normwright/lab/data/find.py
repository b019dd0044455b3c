"""Where the files of a published data set are.

Looked in, in this order: the folder asked for (`--data-dir`), the folder that the environment variable
NORMWRIGHT_DATA names, the folder of the Debian package, and the folder that earlier fetches filled. When the
files are in none of these, torchvision fetches them, where it is installed.
"""

from __future__ import annotations

import os
from pathlib import Path

from normwright.errors import DataError
from normwright.lab.data.archive import Archive
from normwright.lab.data.fetch import fetch, why_not

VARIABLE = "NORMWRIGHT_DATA"


def find(archive: Archive, directory: Path | None = None) -> list[Path]:
    """The files of the archive, in its order; fetched when they are nowhere.

    Args:
        archive: what is looked for.
        directory: where to look first.
    Raises:
        DataError: the directory does not exist, a folder holds some of the files only, or they are
            nowhere and cannot be fetched.
    """
    folders = _folders(archive, directory)
    for folder in folders:
        if files := _files(archive, folder):
            return files
    reason = why_not()
    if reason:
        raise DataError(_not_found(archive, folders, reason))
    fetch(archive, _home())
    files = _files(archive, _home() / archive.name)
    if not files:
        raise DataError(_not_found(archive, folders, "what it fetched holds other files"))
    return files


def _folders(archive: Archive, directory: Path | None) -> list[Path]:
    if directory is not None and not directory.is_dir():
        raise DataError(f"the data directory must be a folder, but {directory} is none; correct --data-dir")
    roots = [directory] if directory is not None else []
    named = os.environ.get(VARIABLE)
    roots += [Path(named).expanduser()] if named else []
    folders = [root / folder for root in roots for folder in archive.folders]
    if archive.installed is not None:
        folders.append(archive.installed)
    if not named:
        folders.append(_home() / archive.name)
    return folders


def _home() -> Path:
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "normwright"


def _files(archive: Archive, folder: Path) -> list[Path]:
    """All files of the archive in this folder, or none; some of them only is an error."""
    found = [_either(folder, name) for name in archive.files]
    present = [path for path in found if path is not None]
    if present and len(present) < len(found):
        missing = [name for name, path in zip(archive.files, found, strict=True) if path is None]
        raise DataError(
            f"{archive.name}: {folder} must hold {_listed(archive)}, but lacks {', '.join(missing)}; "
            "complete the folder, or take the other files out of it"
        )
    return present


def _either(folder: Path, name: str) -> Path | None:
    # The compressed file first: it carries a checksum.
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _listed(archive: Archive) -> str:
    return f"{', '.join(archive.files)} (each plain or .gz)"


def _not_found(archive: Archive, folders: list[Path], reason: str) -> str:
    ways = [
        f"put the files into a folder and name it by --data-dir or by the environment variable {VARIABLE}",
        f"install torchvision, which fetches them (pip install torchvision; now {reason})",
    ]
    if archive.package:
        ways.insert(0, f"install the Debian package (apt install {archive.package})")
    note = f" {archive.note}" if archive.note else ""
    return (
        f"{archive.name} must be on this machine, but was not found. Looked for {_listed(archive)} in: "
        f"{'; '.join(map(str, folders))}. To get it, {', or '.join(ways)}.{note}"
    )
