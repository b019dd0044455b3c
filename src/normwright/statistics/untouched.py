"""Runs a network so that it stays as it was, whatever happens."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.nn.modules.dropout import _DropoutNd

from normwright.network.calling import without_compiled_code
from normwright.network.writing import put_back


@contextlib.contextmanager
def untouched(network: nn.Module, normalisers: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the normalisers run in inference mode, without gradients or compiled code; all comes back.

    In inference mode a call passes the running statistics, and neither moves them nor asks other ranks;
    what it normalises by is decided by the watch that stands in its place.

    Args:
        network: its modules' modes and every buffer are put back, to the bit and to the object.
        normalisers: those that are watched.
    """
    modes = [(module, module.training) for module in network.modules()]
    seats = [
        (module, key, buffer, None if buffer is None else buffer.detach().clone())
        for module in network.modules()
        for key, buffer in module._buffers.items()
    ]
    try:
        for module in normalisers:
            module.training = False
        with torch.no_grad(), without_compiled_code():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, key, buffer, value in seats:
            module._buffers[key] = buffer
            if buffer is not None and value is not None and not torch.equal(buffer, value):
                put_back(buffer, value)


def warn_of_dropout(network: nn.Module) -> None:
    """Warns where statistics would be those of a network that drops out."""
    for name, module in network.named_modules():
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            warnings.warn(
                f"dropout {name!r} is in training mode and stays so: the statistics will be those of a "
                "network that drops out. Call network.eval() first for those of inference",
                stacklevel=3,
            )
            return


def warn_of_others(waits: str, group: ProcessGroup | None) -> None:
    """Warns where other processes may end with other statistics, or wait for each other in a forward.

    Args:
        waits: why a forward of the network waits for other processes, or "".
        group: in which the processes join what they read.
    """
    if group is not None or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    world = torch.distributed.get_world_size()
    if world > 1:
        fewer = f", and processes will be aborted that have fewer batches, since {waits}" if waits else ""
        warnings.warn(
            f"this process is one of {world}, and reads its own batches alone: the processes' statistics "
            f"will differ{fewer}. Pass process_group=torch.distributed.group.WORLD in each",
            stacklevel=3,
        )
