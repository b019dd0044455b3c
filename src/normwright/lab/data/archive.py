"""What a published data set consists of: its files, where they lie, where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Download:
    """One file on its publisher's site, with the checksum that it must have."""

    url: str
    md5: str


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A published data set.

    Args:
        name: as in the recipe.
        files: the names of its files; each may also be compressed, with `.gz` after the name.
        folders: where in a data directory the files may lie, in the order in which to look.
        downloads: what to fetch when it is nowhere.
        unpacked: the folder that the downloads unpack to, within the folder they are fetched to.
        installed: the folder of the Debian package, and `package`, its name.
        note: what else to say when it is not found.
    """

    name: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    downloads: tuple[Download, ...]
    unpacked: str = "."
    installed: Path | None = None
    package: str = ""
    note: str = ""
