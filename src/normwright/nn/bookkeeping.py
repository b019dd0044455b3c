"""When a module in training moves its running statistics: once for every batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch


def is_recomputation() -> bool:
    """Whether this forward runs a second time on a batch, for a backward that needs what was not kept.

    `torch.utils.checkpoint` runs a forward again from inside the backward, on the backward's thread; so
    does whatever else recomputes. PyTorch says there which backward it is.

    Example:
        >>> is_recomputation()
        False
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


_re_estimated: ContextVar[bool] = ContextVar("re_estimated", default=False)


def is_re_estimated() -> bool:
    """Whether the running statistics are just being estimated anew, and so need not have been seen before."""
    return _re_estimated.get()


@contextlib.contextmanager
def re_estimating() -> Iterator[None]:
    """Inside, `is_re_estimated`."""
    token = _re_estimated.set(True)
    try:
        yield
    finally:
        _re_estimated.reset(token)
