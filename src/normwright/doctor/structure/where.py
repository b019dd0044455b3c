"""Where in the source a call stands."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')
_LIBRARIES = (
    str(Path(torch.__file__).parent),
    *(str(Path(__file__).parents[1] / part) for part in ("nn", "functional", "backends", "network")),
)


def where_called(stack_trace: str | None) -> str:
    """File and line of the innermost call that is neither PyTorch's nor normwright's, or "".

    Args:
        stack_trace: as torch.export writes it, the outermost call first.
    Example:
        >>> where_called('File "a.py", line 3, in forward\\n    return self.conv(x)')
        'a.py:3'
    """
    frames = [(found["file"], found["line"]) for found in _FRAME.finditer(stack_trace or "")]
    own = [f"{file}:{line}" for file, line in frames if not file.startswith(_LIBRARIES)]
    return own[-1] if own else ""


def where_defined(modules: list[nn.Module]) -> str:
    """File and line of the class of the last module whose class is not PyTorch's or normwright's, or "".

    Args:
        modules: those around a call, the outermost first.
    """
    kinds: list[Any] = [type(module) for module in reversed(modules)]
    return next(filter(None, map(_of_class, kinds)), "")


@functools.lru_cache(maxsize=4096)
def _of_class(kind: Any) -> str:
    try:
        file = inspect.getsourcefile(kind)
        if file is None or file.startswith(_LIBRARIES):
            return ""
        return f"{file}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):  # typed in at a prompt, or made by a program
        return ""
