"""The loss of whatever a network returns: a tensor, or an object with `.logits` or `.loss`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from normwright.errors import DataError, OptionError, unknown_name
from normwright.lab.objective import LOSSES, loss_named
from normwright.lab.user_code import is_user_code, resolve
from normwright.network.counting import how_many

OWN = "own"
_IGNORED = -100  # the label that PyTorch's cross entropy passes over

AnyLoss = Callable[[Any, Any], Tensor]


def loss_of_any(name: str | None) -> AnyLoss | None:
    """The loss (outputs, target) -> scalar, where outputs are a tensor or have `.logits` or a `.loss`.

    Args:
        name: `cross_entropy`, `mse` (on one-hot labels where they are classes), `own` (the network's), or a
            user's function (outputs, target) -> scalar, which gets what the network returns. None is the
            network's own where it returns one, and else cross entropy.
    Returns:
        The function, or None for `own`.
    Raises:
        OptionError: an unknown name.
        UserCodeError: a user's function is missing.
    Example:
        >>> loss_of_any(None)(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6931)
    """
    if name == OWN:
        return None
    if name is not None and is_user_code(name):
        return resolve(name)
    if name is not None and name not in LOSSES:
        raise unknown_name(
            "loss", name, [*LOSSES, OWN, "package.module:function", "path/to/file.py:function"]
        )

    def loss(outputs: Any, target: Any) -> Tensor:
        own = _part(outputs, "loss")
        if name is None and isinstance(own, Tensor):
            return own
        predictions = outputs if isinstance(outputs, Tensor) else _part(outputs, "logits")
        if not isinstance(predictions, Tensor) or not isinstance(target, Tensor):
            raise OptionError(
                f"{name or 'cross_entropy'} takes a tensor or an object with .logits from the network and a "
                f"tensor of labels, but {type(outputs).__name__} and {type(target).__name__} came: name a "
                "loss of your own, path/to/file.py:function(outputs, target)"
            )
        if not target.is_floating_point() and predictions.dim() > 1:
            _check_classes(target, predictions.shape[1])
        return loss_named(name or "cross_entropy")(predictions, target)

    return loss


def _check_classes(labels: Tensor, outputs: int) -> None:
    counted = labels[labels != _IGNORED]
    if not counted.numel():
        return
    low, high = map(int, torch.aminmax(counted))
    if high >= outputs or low < 0:
        raise DataError(
            f"labels must be class numbers from 0 to {outputs - 1}, as the network has "
            f"{how_many(outputs, 'output')}, but {high if high >= outputs else low} came: "
            "give the network an output for each class, or number the classes 0, 1, 2, …"
        )


def _part(outputs: Any, name: str) -> Any:
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
