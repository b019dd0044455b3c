"""One call of a normaliser, read from a module and its input or from a function's arguments."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from normwright.functional.whitening.autograd import Rule
from normwright.network.walk import GHOSTS, SPLIT, WHITENING
from normwright.nn.bookkeeping import is_recomputation

# Rows of layer, group and RMS norm that are looked at in one call: their variances are wanted in the
# large, and each costs a reading.
_ROWS = 64


@dataclass(frozen=True, eq=False)
class Sight:
    """One call of a normaliser, as it begins.

    Args:
        layer: qualified name of the module; of a bare function's call "module: function".
        kind: the module's class's name, or the function's.
        module: the normaliser, or the module whose forward makes the bare call.
        bare: a function is called by a module that is no normaliser.
        x: (N, C, *space); layer and RMS norm's as (N, 1, D), group norm's as (N, G, D).
        per_sample: each sample has moments of its own.
        by_batch: it normalises by the moments of x, not by running statistics.
        centred: it takes the mean off, as all but RMS norm do.
        running_mean, running_var, weight: (C,), or None; of batch and instance norm, and of whitening, of
            which (G, d, d) covariances stand for the variances.
        eps: added to the variance.
        momentum: the module's; None for the mean over all batches.
        synchronised: its moments are taken over all ranks.
        recomputed: it runs inside a backward.
        whitening: how a covariance becomes the projection that it normalises by; None where it does not.
    """

    layer: str
    kind: str
    module: nn.Module
    bare: bool
    x: Tensor
    per_sample: bool
    by_batch: bool
    centred: bool
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    eps: float
    momentum: float | None
    synchronised: bool
    recomputed: bool
    whitening: Rule | None = None

    @property
    def tracks(self) -> bool:
        """Whether it keeps running statistics."""
        return self.running_mean is not None and self.running_var is not None

    @property
    def elements(self) -> int:
        """Behind each moment."""
        space = self.x[0, 0].numel() if self.x.numel() else 0
        return space if self.per_sample else space * len(self.x)

    def without_elements(self) -> Sight:
        """The same without x's elements, which it would keep in memory."""
        return dataclasses.replace(self, x=self.x.new_empty((0, self.x.shape[1])))


_CHANNELS = ("input", "running_mean", "running_var", "weight", "bias")
_TORCH_CHANNELS = ("input", "weight", "bias", "running_mean", "running_var")

#: The functions that normalise, and the names of their arguments.
FUNCTIONS: dict[Any, tuple[str, ...]] = {
    F.batch_norm: (*_CHANNELS, "training", "momentum", "eps"),
    F.instance_norm: (*_CHANNELS, "use_input_stats", "momentum", "eps"),
    torch.batch_norm: (*_TORCH_CHANNELS, "training", "momentum", "eps"),
    torch.instance_norm: (*_TORCH_CHANNELS, "use_input_stats", "momentum", "eps"),
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
}
_BY_CHANNELS = (F.batch_norm, F.instance_norm, torch.batch_norm, torch.instance_norm)


def calls_no_function(module: nn.Module) -> bool:
    """Whether a normaliser goes to its kernel past the functions above, or to one of all ranks."""
    return isinstance(module, nn.SyncBatchNorm) or any(
        kind.__module__.startswith("normwright.nn") for kind in type(module).__mro__
    )


def sight_of_module(name: str, module: nn.Module, x: Tensor) -> Sight | None:
    """The call of a normaliser by its own settings, or None for a module of no known kind."""
    kind = type(module).__name__
    if isinstance(module, GHOSTS):
        x = x[: module.ghost_size]  # one virtual batch: what a moment is of
    if isinstance(module, WHITENING):
        return _whitening(name, kind, module, x)
    if isinstance(module, _NormBase):
        per_sample = isinstance(module, _InstanceNorm)
        if per_sample and x.dim() == module._get_no_batch_dim():  # type: ignore[operator]
            x = x.unsqueeze(0)
        mean, variance = module.running_mean, module.running_var
        if isinstance(module, SPLIT):
            if isinstance(module.domain, Tensor):  # samples of several domains
                return None
            if module.domain:
                mean, variance = (
                    getattr(module, f"{part}_{module.domain}") for part in ("running_mean", "running_var")
                )
        by_batch = module.training or mean is None or (per_sample and not module.track_running_stats)
        return _channels(
            name, module, x, mean, variance, module.weight, module.eps,
            bare=False, kind=kind, per_sample=per_sample, by_batch=by_batch, momentum=module.momentum,
        )  # fmt: skip
    if isinstance(module, nn.GroupNorm):
        return _rows(name, kind, module, _groups_of(x, module.num_groups), module.eps, bare=False)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        x = _rows_of(x, module.normalized_shape)
        centred = isinstance(module, nn.LayerNorm)
        return _rows(name, kind, module, x, _eps(module.eps, x), bare=False, centred=centred)
    return None


def sight_of_function(
    func: Any, args: tuple[Any, ...], named: dict[str, Any], name: str, module: nn.Module, *, bare: bool
) -> Sight | None:
    """The call of a function, or None where it will be refused, or standardises a weight."""
    given = {**dict(zip(FUNCTIONS[func], args, strict=False)), **named}
    x = given.get("input")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    # F.batch_norm of a convolution's weight, as BiT and NFNets have it, has nothing to do with the batch.
    if func in _BY_CHANNELS and isinstance(x if x._base is None else x._base, nn.Parameter):
        return None
    kind = func.__name__ if bare else type(module).__name__
    eps = _eps(given.get("eps", torch.finfo(x.dtype).eps if func is F.rms_norm else 1e-5), x)
    if func in _BY_CHANNELS:
        per_sample = "instance" in func.__name__
        by_batch = given.get("use_input_stats", True) if per_sample else given.get("training", False)
        momentum = module.momentum if isinstance(module, _NormBase) else given.get("momentum", 0.1)
        mean, variance = given.get("running_mean"), given.get("running_var")
        return _channels(
            name, module, x, mean, variance, given.get("weight"), eps,
            bare=bare, kind=kind, per_sample=per_sample, by_batch=bool(by_batch), momentum=momentum,
        )  # fmt: skip
    if func is F.group_norm:
        return _rows(name, kind, module, _groups_of(x, given["num_groups"]), eps, bare=bare)
    x = _rows_of(x, given["normalized_shape"])
    return _rows(name, kind, module, x, eps, bare=bare, centred=func is not F.rms_norm)


def _channels(
    name: str,
    module: nn.Module,
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    eps: float,
    *,
    bare: bool,
    kind: str,
    per_sample: bool,
    by_batch: bool,
    momentum: float | None,
) -> Sight | None:
    if x.dim() < 2:
        return None
    synchronised = isinstance(module, nn.SyncBatchNorm) and not bare
    return Sight(
        name, kind, module, bare, x.detach(), per_sample, by_batch, True, mean, variance, weight, eps,
        momentum, synchronised, is_recomputation(),
    )  # fmt: skip


def _whitening(name: str, kind: str, module: Any, x: Tensor) -> Sight | None:
    sight = _channels(
        name, module, x, module.running_mean, module.running_covariance, module.weight, module.eps,
        bare=False, kind=kind, per_sample=False, by_batch=module.training or module.running_mean is None,
        momentum=module.momentum,
    )  # fmt: skip
    rule = Rule(module.group_size, float(module.eps), module.method, module.iterations)
    return None if sight is None else dataclasses.replace(sight, whitening=rule)


def _rows(
    name: str, kind: str, module: nn.Module, x: Tensor, eps: float, *, bare: bool, centred: bool = True
) -> Sight:
    return Sight(
        name, kind, module, bare, x, True, True, centred, None, None, None, eps, None, False,
        is_recomputation(),
    )  # fmt: skip


def _rows_of(x: Tensor, shape: Any) -> Tensor:
    rows = x.detach().reshape(-1, 1, math.prod(shape))
    return rows[:: max(1, -(-len(rows) // _ROWS))]


def _groups_of(x: Tensor, groups: int) -> Tensor:
    x = x.detach()
    some: Tensor = x[:: max(1, -(-len(x) * groups // _ROWS))]
    return some.reshape(len(some), groups, -1)


def _eps(eps: float | None, x: Tensor) -> float:
    return torch.finfo(x.dtype).eps if eps is None else eps
