"""Loads the C++ library, which registers its kernels for the CPU with PyTorch's dispatcher.

The operators must have been defined before (`schema.register`): the library only implements them.

What it does not do is said in words for the person at the keyboard, for `normwright.backends()`: no library
was built, and why; PyTorch is too old; it was built from other sources; it cannot be loaded.
`NORMWRIGHT_NATIVE=0` keeps it from being loaded, so that the kernels can be compared with plain PyTorch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

LIBRARY = "libnormwright.so"

# Where the build writes why it made no library (CMakeLists.txt).
NOT_BUILT = "not_built.txt"

# The kinds of files in csrc/ that the library is made from (csrc/cmake/stamp.cmake).
SOURCES = {".cpp", ".h", ".txt"}

SWITCH = "NORMWRIGHT_NATIVE"

# Without the last, pip would take the wheel that it kept.
_AFRESH = "pip's --force-reinstall --no-deps --no-cache-dir"

# What the library asks of PyTorch's stable ABI: TORCH_TARGET_VERSION in the build.
OLDEST_TORCH = (2, 10)


class Native(NamedTuple):
    """Whether the kernels are loaded; what they were compiled for, or why they are not loaded."""

    loaded: bool
    reason: str


def load(folders: Iterable[str] | None = None) -> Native:
    """Loads the library; warns where it cannot be loaded, unless it was switched off.

    Args:
        folders: where to look; the folders of the package `normwright` unless given (an editable
            installation has two: the sources, and what was compiled).
    """
    setting = os.environ.get(SWITCH, "")
    if setting == "0":
        return Native(False, f"switched off: {SWITCH}=0 in the environment")
    places = [Path(folder) for folder in (sys.modules["normwright"].__path__ if folders is None else folders)]
    if setting in ("", "1"):
        native = _load(places)
    else:
        native = Native(False, f"{SWITCH} must be 0 or 1, but is {setting!r} in the environment")
    if not native.loaded:
        message = f"normwright runs on the CPU without its C++ kernels, several times slower: {native.reason}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return native


def _load(folders: list[Path]) -> Native:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        return Native(False, f"the C++ kernels need PyTorch {oldest} or later; this is {torch.__version__}")
    path = next((path for folder in folders if (path := folder / LIBRARY).exists()), None)
    if path is None:
        return Native(False, _why_not_built(folders))
    for folder in folders:
        checkout = folder.absolute().parent.parent
        if _is_stale(path, checkout / "csrc"):
            return Native(
                False,
                f"{LIBRARY} was built from other sources than those in {checkout / 'csrc'}. "
                f"Build it again: pip install --no-deps --editable {shlex.quote(str(checkout))}",
            )
    try:
        torch.ops.load_library(path)
        library = ctypes.CDLL(str(path))
        library.normwright_instruction_set.restype = ctypes.c_char_p
        instruction_set = library.normwright_instruction_set().decode()
    except (OSError, AttributeError) as error:
        cause = error.__cause__ or error  # PyTorch puts the linker's words there
        return Native(
            False,
            f"{LIBRARY} cannot be loaded into PyTorch {torch.__version__}: {cause}. "
            f"To have it built here, install normwright again with {_AFRESH}",
        )
    return Native(True, f"C++, compiled for {instruction_set}")


def _is_stale(library: Path, sources: Path) -> bool:
    """Whether the library was built from other sources, where these are there: in an editable installation.

    PyTorch does not compare a kernel with its operator's schema: one built before an argument was added would
    be called, and take the next for it. What is loaded cannot be unloaded, hence the look into the file.
    """
    if not (sources / "library.cpp").exists():
        return False
    return stamp(sources).encode() not in library.read_bytes()


def stamp(sources: Path) -> str:
    """What a library that was built from these sources contains."""
    files = sorted(path for path in sources.iterdir() if _is_source(path))
    listing = "".join(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in files)
    return f"normwright sources {hashlib.sha256(listing.encode()).hexdigest()}"


def _is_source(path: Path) -> bool:
    """Neither a folder nor what is hidden, as an editor's copy or lock, which may link to nothing."""
    return path.suffix in SOURCES and not path.name.startswith(".") and path.is_file()


def _why_not_built(folders: list[Path]) -> str:
    for folder in folders:
        if (note := folder / NOT_BUILT).exists():
            why = note.read_text(encoding="utf-8").strip()
            return f"{why}. Once that is mended, install normwright again with {_AFRESH}"
    return (
        f"they were not built. To see why, install normwright again with {SWITCH}=1 in the environment, "
        f"which makes it an error, and {_AFRESH}"
    )
