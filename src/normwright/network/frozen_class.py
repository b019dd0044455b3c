"""The class of a normaliser whose running statistics are held where they are."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

import normwright.nn

_FROM = "_normwright_unfrozen"  # of a frozen class: the class before
_ASKED = "_normwright_training"  # of a frozen module: the mode that it would have

_BUILT_FROZEN = (
    normwright.nn.FrozenBatchNorm1d,
    normwright.nn.FrozenBatchNorm2d,
    normwright.nn.FrozenBatchNorm3d,
)


def is_frozen(module: nn.Module) -> bool:
    """Whether a normaliser's statistics are fixed: by `freeze`, or as it was built.

    Example:
        >>> is_frozen(normwright.nn.FrozenBatchNorm2d(4)), is_frozen(nn.BatchNorm2d(4))
        (True, False)
    """
    if isinstance(module, _BUILT_FROZEN) or derives_from_frozen(type(module)):
        return True
    # those of torchvision, detectron2 and Transformers, which no package here depends on
    return any("FrozenBatchNorm" in ancestor.__name__ for ancestor in type(module).__mro__)


def unfrozen_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a module had before it was frozen, or its class."""
    own: type[nn.Module] = kind.__dict__.get(_FROM, kind)
    return own


def derives_from_frozen(kind: type[nn.Module]) -> bool:
    """Whether a class was made by `frozen_class`, or derives from such a one, as a parametrized module's."""
    return hasattr(kind, _FROM)


def frozen_class(own: Any) -> type[nn.Module]:
    """A subclass of `own` that stays in inference; what it holds takes the mode that is asked for."""
    return _frozen_class(own)


@functools.lru_cache(maxsize=1024)
def _frozen_class(own: Any) -> type[nn.Module]:
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        own.train(self, mode)
        self.__dict__[_ASKED] = self.training
        self.training = False
        return self

    def reduce(self: nn.Module, protocol: Any) -> Any:
        made: Any = object.__reduce_ex__(self, 4)
        return (_restore, (own,), *made[2:])

    def leave(self: nn.Module) -> None:
        """As those of `nn.FrozenBatchNorm2d`, so that `torch.optim.swa_utils.update_bn` leaves them."""

    def start_anew(self: nn.Module) -> None:
        own.reset_running_stats(self)
        own.reset_parameters(self)

    resets = {"reset_running_stats": leave, "reset_parameters": start_anew}
    members = {
        **{name: reset for name, reset in resets.items() if hasattr(own, name)},
        "train": train,
        "__reduce_ex__": reduce,
        "__module__": own.__module__,
        "__doc__": own.__doc__,
        _FROM: own,
    }
    kind: type[nn.Module] = type(f"Frozen{own.__name__}", (own,), members)
    return kind


def hold(module: nn.Module) -> None:
    """Puts a module that has a frozen class now in inference."""
    module.__dict__[_ASKED] = module.training
    module.training = False


def let_go(module: nn.Module) -> None:
    """Gives a module that had a frozen class the mode that was last asked for."""
    module.training = module.__dict__.pop(_ASKED)


def _restore(own: type[nn.Module]) -> nn.Module:
    kind = frozen_class(own)
    return kind.__new__(kind)
