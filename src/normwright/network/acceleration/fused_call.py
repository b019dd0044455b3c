"""One call of a normaliser with a residual and an activation that its module does not hold."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from normwright.functional import group_norm, layer_norm, rms_norm
from normwright.nn.batch_norm import _forward as _batch_forward
from normwright.nn.instance_norm import _forward as _instance_forward
from normwright.nn.sync_batch_norm import _forward as _sync_forward


class Watcher:
    """A forward hook that only looks: a fused call calls it with what the normaliser alone would return.

    Any other hook makes a block run its own forward, in which the normaliser is called as a module.

    Args:
        see: called with (x, y) of every call of the module.
    """

    def __init__(self, see: Callable[[Tensor, Tensor], None]) -> None:
        self.see = see

    def __call__(self, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        """As a forward hook of the module."""
        self.see([*args, *named.values()][0], output)


def watch(module: nn.Module, see: Callable[[Tensor, Tensor], None]) -> Any:
    """Calls see(x, y) at every call of a module, fused or not; returns the handle that ends it."""
    return module.register_forward_hook(Watcher(see), with_kwargs=True)


def fused(
    norm: nn.Module,
    x: Tensor,
    residual: Any = None,
    activation: str | None = None,
    in_place: bool = False,
    norm_first: bool = True,
) -> Tensor:
    """activation(norm(x) + residual) in one operator, where the residual is like x; else one by one.

    Args:
        norm: a drop-in of `normwright.nn` whose own activation is None, with no hooks but watchers.
        x: its input.
        residual: what the network adds to its output, whatever that is.
        activation: as in `normwright.functional`.
        in_place: the network adds with `+=`.
        norm_first: the network adds the residual to the normaliser's output, and not the other way round.
    """
    # What a synchronised one would return alone is not computed beside: that takes all its processes.
    watched = bool(norm._forward_hooks) and isinstance(norm, nn.SyncBatchNorm)
    if not watched:
        for hook in norm._forward_hooks.values():
            hook.see(x, _alone(norm, x))  # type: ignore[attr-defined]
        if residual is None or _alike(residual, x):
            return _call(norm, x, residual, activation)
    y = _call(norm, x, None, None)
    if watched:
        for hook in norm._forward_hooks.values():
            hook.see(x, y)  # type: ignore[attr-defined]
    if residual is not None:
        add = operator.iadd if in_place else operator.add
        y = add(y, residual) if norm_first else add(residual, y)
    # PyTorch's, as the network calls it.
    return y if activation is None else getattr(nn.functional, activation)(y)


def _alike(residual: Any, x: Tensor) -> bool:
    """Whether the sum with norm(x), which is like x, keeps shape, dtype and strides."""
    return (
        isinstance(residual, Tensor)
        and residual.shape == x.shape
        and residual.dtype == x.dtype
        and residual.device == x.device
        and residual.layout == x.layout
        and residual.stride() == x.stride()
    )


def _call(norm: nn.Module, x: Tensor, residual: Tensor | None, activation: str | None) -> Tensor:
    """What the module's forward does, with this activation instead of its own."""
    if isinstance(norm, nn.SyncBatchNorm):
        return _sync_forward(norm, x, residual, activation)
    if isinstance(norm, _BatchNorm):
        return _batch_forward(norm, x, residual, activation)
    if isinstance(norm, _InstanceNorm):
        return _instance_forward(norm, x, residual, activation)
    if isinstance(norm, nn.GroupNorm):
        settings = (norm.num_groups, norm.weight, norm.bias, norm.eps)
        return group_norm(x, *settings, residual=residual, activation=activation)
    if isinstance(norm, nn.LayerNorm):
        shape = (norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return layer_norm(x, *shape, residual=residual, activation=activation)
    assert isinstance(norm, nn.RMSNorm)
    return rms_norm(x, norm.normalized_shape, norm.weight, norm.eps, residual=residual, activation=activation)


@torch.no_grad()
def _alone(norm: nn.Module, x: Tensor) -> Tensor:
    """The normaliser's output, with its running statistics left where they are."""
    twin = copy.copy(norm)
    twin._buffers = {name: value if value is None else value.clone() for name, value in norm._buffers.items()}
    return _call(twin, x.detach(), None, None)
