"""What a run is trained on and judged by: the loss and the metric, built in or the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normwright.errors import OptionError, UserCodeError, unknown_name
from normwright.lab.user_code import is_user_code, resolve

Loss = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], float]


def _mse(outputs: Tensor, labels: Tensor) -> Tensor:
    if labels.is_floating_point():
        if outputs.shape != labels.shape:
            raise OptionError(
                f"mse compares outputs and targets of one shape, but {tuple(outputs.shape)} and "
                f"{tuple(labels.shape)} came: bring one to the shape of the other"
            )
        return torch.nn.functional.mse_loss(outputs, labels)
    one_hot = torch.nn.functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
    return torch.nn.functional.mse_loss(outputs, one_hot)


def right_answers(outputs: Tensor, labels: Tensor) -> Tensor:
    """Which samples, (N,), have their greatest output at the label; `accuracy` is their share."""
    return outputs.argmax(1) == labels


def _accuracy(outputs: Tensor, labels: Tensor) -> float:
    return float(right_answers(outputs, labels).double().mean())


LOSSES: dict[str, Loss] = {"cross_entropy": torch.nn.functional.cross_entropy, "mse": _mse}
METRICS: dict[str, Metric] = {"accuracy": _accuracy}


def _find(what: str, name: str, known: dict[str, Any]) -> Callable[..., Any]:
    if name in known:
        found: Callable[..., Any] = known[name]
        return found
    if is_user_code(name):
        return resolve(name)
    raise unknown_name(what, name, [*known, "package.module:function", "path/to/file.py:function"])


def loss_named(name: str) -> Loss:
    """The loss (outputs (N, classes), labels (N,)) -> scalar tensor.

    Args:
        name: `cross_entropy`, `mse` (on one-hot labels where they are classes), or a user's function.
    Returns:
        The loss; a user's is checked at every call, since only then its result is seen.
    Raises:
        OptionError: an unknown name; when called, mse of targets that are numbers of another shape.
        UserCodeError: a user's function is missing, or does not return a scalar tensor with a gradient.
    Example:
        >>> loss_named("cross_entropy")(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6931)
    """
    loss = _find("loss", name, LOSSES)
    return loss if name in LOSSES else checked_loss(loss, name)


def checked_loss(loss: Loss, name: str) -> Loss:
    """A user's loss, with a check of what it returns at every call.

    Raises:
        UserCodeError: when called, and the loss is no scalar tensor or has no gradient.
    """

    def checked(outputs: Tensor, labels: Tensor) -> Tensor:
        value = loss(outputs, labels)
        if not (isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()):
            raise UserCodeError(f"{name} must return a scalar tensor, the loss, but returned {_shown(value)}")
        if outputs.requires_grad and not value.requires_grad:
            raise UserCodeError(
                f"{name} must return a loss that depends on the outputs, but its result has no gradient: "
                "compute it with PyTorch's operations, without .item() or .detach()"
            )
        return value.reshape(())

    return checked


def metric_named(name: str) -> Metric:
    """The metric (outputs (N, classes), labels (N,)) -> number; higher is better.

    Args:
        name: `accuracy`, or a user's function.
    Raises:
        OptionError: an unknown name.
        UserCodeError: a user's function is missing, or does not return a number.
    Example:
        >>> metric_named("accuracy")(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
        1.0
    """
    metric = _find("metric", name, METRICS)
    if name in METRICS:
        return metric

    def checked(outputs: Tensor, labels: Tensor) -> float:
        value = metric(outputs, labels)
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserCodeError(f"{name} must return a number, but returned {_shown(value)}") from error
        if not math.isfinite(number):
            raise UserCodeError(
                f"{name} must return a finite number for finite outputs, but returned {number}: say what is "
                "meant where it is undefined, such as 0"
            )
        return number

    return checked


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{type(value).__name__} {value!r:.80}"
