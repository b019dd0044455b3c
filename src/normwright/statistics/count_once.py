"""Activation checkpointing: running statistics that move once for a batch, in PyTorch's own normalisers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from normwright.network.walk import check_network
from normwright.nn.bookkeeping import is_recomputation


class Counting:
    """What `count_once` put on a network.

    Args:
        layers: qualified names of the normalisers that are watched.
    """

    def __init__(self, network: nn.Module) -> None:
        self._before: dict[nn.Module, list[dict[str, Tensor]]] = {}
        self._handles = []
        names = []
        for name, module in network.named_modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                names.append(name)
                self._handles.append(module.register_forward_pre_hook(self._keep))
                # Also where the recomputation is broken off, as soon as it has what it needs.
                self._handles.append(module.register_forward_hook(self._put_back, always_call=True))
        self.layers = tuple(names)

    def remove(self) -> None:
        """Leaves the network as it was."""
        for handle in self._handles:
            handle.remove()

    def _keep(self, module: nn.Module, _: Any) -> None:
        if is_recomputation():
            buffers = {name: buffer.clone() for name, buffer in module.named_buffers(recurse=False)}
            self._before.setdefault(module, []).append(buffers)

    def _put_back(self, module: nn.Module, *_: Any) -> None:
        if is_recomputation() and self._before.get(module):
            for name, buffer in self._before[module].pop().items():
                # PyTorch saves running statistics for a backward that does not read them in training; as
                # `data` they can change meanwhile, as they do in its own forward.
                module._buffers[name].data.copy_(buffer)  # type: ignore[union-attr]


def count_once(network: nn.Module) -> Counting:
    """Makes normalisers of any class count a batch once under activation checkpointing, in place.

    `torch.utils.checkpoint`, reentrant or not, runs a part of the forward again inside the backward, and
    PyTorch's batch norm then moves its running statistics a second time. After this call a normaliser that
    runs inside a backward has its running statistics, and its number of batches, put back when it is done.
    Those of `normwright.nn` need no such call: they do not move them there.

    Where `torch.compile` compiles what checkpoints, its graph moves them once, with or without this. A part
    that is compiled alone and checkpointed from outside moves them twice all the same: compile the whole.

    Args:
        network: whose batch (and tracking instance) norms are meant.
    Returns:
        The handle whose `remove()` undoes it, with the names of the layers.
    Example:
        >>> from torch.utils.checkpoint import checkpoint
        >>> norm = nn.BatchNorm1d(2)
        >>> counting = count_once(norm)
        >>> x = torch.randn(4, 2, requires_grad=True)
        >>> checkpoint(norm, x, use_reentrant=False).sum().backward()
        >>> norm.num_batches_tracked
        tensor(1)
    """
    check_network(network)
    return Counting(network)
