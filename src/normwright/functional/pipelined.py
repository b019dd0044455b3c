"""Derivatives of the operators themselves, for the stages that `torch.distributed.pipelining` traces.

`pipeline()` exports the network, and the stages that it trains call the operators without the functions
around them. An operator of ours has no derivative there, for one in Python would double what every call
costs; it is given one, for good, where the pipelining exports a network.
"""

from __future__ import annotations

import functools
import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from normwright.errors import OptionError

_PIPELINING = "torch.distributed.pipelining"
_FAMILIES: dict[Any, Any] = {}


def knows(operator: Any, differentiable: Any) -> None:
    """Says how an operator is differentiated: by a `torch.autograd.Function` that takes what it takes."""
    _FAMILIES[operator] = differentiable


def differentiate_if_pipelined() -> None:
    """Gives the operators their derivatives, once, where it is the pipelining that exports a network.

    That it was imported says little: Accelerate does so, and with it Transformers' Trainer.
    """
    if _PIPELINING in sys.modules and _is_running(_PIPELINING):
        _library()


def _is_running(package: str) -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(package):
            return True
        frame = frame.f_back
    return False


@functools.cache
def _library() -> torch.library.Library:
    library = torch.library.Library("normwright", "IMPL")
    for operator, differentiable in _FAMILIES.items():
        library.impl(operator.name(), functools.partial(_call, operator, differentiable), "Autograd")
    moments = torch.ops.normwright.channel_moments.default
    library.impl(moments.name(), functools.partial(_call, moments, _Refused), "Autograd")
    return library


def _call(operator: Any, differentiable: Any, *call: Any) -> Any:
    """An operator's call, past the derivative where none is asked for, as from within that itself.

    Nor under a transform of `torch.func`, which differentiates the function around the operator.
    """
    asked = torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
    if asked and any(isinstance(each, Tensor) and each.requires_grad for each in call):
        return differentiable.apply(*call)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*call)


class _Refused:
    """In the place of a derivative that only the function around the operator knows."""

    @staticmethod
    def apply(x: Tensor) -> Any:
        """The moments while a network is exported; afterwards nothing."""
        if torch.compiler.is_exporting():
            return torch.ops.normwright.channel_moments.default(x.detach())
        raise OptionError(
            "a stage that torch.distributed.pipelining.pipeline() traced must not train synchronised batch "
            "norm, batch renormalisation or whitening, whose gradients its trace does not hold: build the "
            "stages by hand with PipelineStage, which calls the modules themselves"
        )
