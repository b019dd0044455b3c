"""The traceback of an exception of a user's code, without what leads to that code."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from types import TracebackType

_OURS, _IMPORTLIB = Path(__file__).parents[1], Path(importlib.__file__).parent


def user_traceback(error: BaseException) -> str:
    """As Python prints it, from the first frame that is not normwright's or of an import.

    Where the user's code has no part in it, all of it; of a file that is no Python the exception names the
    place by itself.
    """
    part: TracebackType | None = error.__traceback__
    while part is not None and _leads_there(part.tb_frame.f_code.co_filename):
        part = part.tb_next
    if part is None and not isinstance(error, SyntaxError):
        part = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, part)).strip()


def _leads_there(file: str) -> bool:
    folders = Path(file).parents
    return file.startswith("<frozen importlib") or _OURS in folders or _IMPORTLIB in folders
