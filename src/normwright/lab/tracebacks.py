"""The traceback of an exception of a user's code, without what leads to that code."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from types import TracebackType

import torch

from normwright.errors import NormwrightError

_OURS = Path(__file__).parents[1]
_IMPORTLIB, _TORCH = Path(importlib.__file__).parent, Path(torch.__file__).parent


def user_traceback(error: BaseException) -> str:
    """As Python prints it, from the first frame that is not normwright's, PyTorch's or of an import.

    Where the user's code has no part in it, from PyTorch's, or all of it. Of a file that is no Python, and
    where normwright raised it on purpose, the exception says enough by itself.
    """
    part = _after(error.__traceback__, _OURS, _IMPORTLIB, _TORCH)
    if part is None and isinstance(error, NormwrightError):
        return f"{type(error).__name__}: {error}"
    part = part or _after(error.__traceback__, _OURS, _IMPORTLIB)
    if part is None and not isinstance(error, SyntaxError):
        part = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, part)).strip()


def _after(part: TracebackType | None, *leading: Path) -> TracebackType | None:
    """What follows the frames of these folders and of imports."""
    while part is not None and _is_of(part.tb_frame.f_code.co_filename, leading):
        part = part.tb_next
    return part


def _is_of(file: str, folders: tuple[Path, ...]) -> bool:
    return file.startswith("<frozen importlib") or any(folder in Path(file).parents for folder in folders)
