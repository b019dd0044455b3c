"""Triton's interpreter, put right where it does not compute what a GPU does, or nothing at all."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from normwright.backends.triton import interprets


def put_right() -> None:
    """All of it; once, before the first kernel."""
    round_to_bfloat16()
    count_to_tensors()


def round_to_bfloat16() -> None:
    """Has the interpreter round float32 to the nearest bfloat16, as GPUs do; it would cut the digits off."""
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounding(values: Any, source: Any, target: Any, mode: Any) -> Any:
        if source == tl.float32 and target == tl.bfloat16:
            narrow = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
            return narrow.view(torch.uint16).numpy()
        return convert(values, source, target, mode)

    interpreter._convert_float = rounding


def count_to_tensors() -> None:
    """Has a loop end at a number that is a tensor: Triton 3.6 reads it in a way that NumPy 2.4 refuses."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def counting(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = counting


def quietly() -> AbstractContextManager[object]:
    """The interpreter computes with NumPy, which warns of an overflow; the kernels reckon with those."""
    return np.errstate(all="ignore") if interprets() else nullcontext()
