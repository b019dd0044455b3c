"""Fetching a published data set, by torchvision, where that is installed."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

from normwright.errors import DataError
from normwright.lab.data.archive import Archive


def why_not() -> str:
    """Why nothing can be fetched; empty when it can."""
    return "" if importlib.util.find_spec("torchvision") else "it is not installed"


def fetch(archive: Archive, home: Path) -> None:
    """Fetches the archive into the folder of its name in `home`, whole or not at all.

    Raises:
        DataError: the site cannot be reached, a checksum is wrong, or the disk is full.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        # In a folder of its own, renamed when complete: a fetch that is killed leaves no half set behind.
        with tempfile.TemporaryDirectory(prefix=f".{archive.name}-", dir=home) as scratch:
            files = Path(scratch) / "files"
            _download(archive, files)
            _move(files / archive.unpacked, home / archive.name)
    except (
        OSError,
        EOFError,
        RuntimeError,
        http.client.HTTPException,
        tarfile.TarError,
        zlib.error,
    ) as fault:
        raise DataError(
            f"{archive.name} must be fetched into {home}, but that failed: {fault}; see the network and the "
            "free space and run the same command again, or name a folder that has the files by --data-dir"
        ) from fault


def _download(archive: Archive, into: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    # torchvision prints its progress, and a command's own output may be read by a machine.
    with contextlib.redirect_stdout(sys.stderr):
        for file in archive.downloads:
            download_and_extract_archive(file.url, str(into), md5=file.md5, remove_finished=True)


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError:
        # Another process has fetched the same set in the meantime.
        if not target.is_dir():
            raise
