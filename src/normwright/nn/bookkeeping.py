"""When a module in training moves its running statistics: once for every batch."""

from __future__ import annotations

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
