"""A data set of the user's own: what their function returns, as tensors.

The values are used as they come, in float32: the function decides whether and how to standardise.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from normwright.errors import DataError, UserCodeError
from normwright.lab.data.dataset import Data, Raw
from normwright.lab.user_code import resolve

WANTED = (
    "(x_train, y_train, x_test, y_test) as tensors or NumPy arrays, or (train, test) as "
    "map-style torch data sets of (x, y) pairs (with __len__ and __getitem__), or a normwright Data"
)


def read_own(name: str) -> Raw | Data:
    """Calls the user's function, without arguments, and checks what it returns.

    Args:
        name: `package.module:function` or `path/to/file.py:function`.
    Returns:
        The `Data` that it made, or else float32 values of any shape (N, ...), with classes numbered
        from 0 to the greatest training label.
    Raises:
        UserCodeError: it is missing, needs arguments, or returns something else than `WANTED`.
        DataError: what it returns is inconsistent.
        Exception: whatever the user's code raises, unchanged.
    """
    return as_source(name, call_own(name))


def call_own(name: str) -> Any:
    """What the user's function returns, called without arguments.

    Raises:
        UserCodeError: it is missing, or needs arguments.
        Exception: whatever the user's code raises, unchanged.
    """
    function = resolve(name)
    _check_no_arguments(name, function)
    return function()


def as_source(name: str, came: Any, *, or_else: str = "") -> Raw | Data:
    """What a user's function returned, checked; see `read_own`.

    Args:
        name: of the function.
        came: what it returned.
        or_else: what else it might have returned, as the error says.
    """
    if isinstance(came, Data):
        return came
    train_x, train_y, test_x, test_y = _parts(name, came, or_else)
    labels = _labels(f"{name}: the training labels", train_y)
    return Raw(
        name,
        _values(f"{name}: the training x", train_x),
        labels,
        _values(f"{name}: the test x", test_x),
        _labels(f"{name}: the test labels", test_y),
        _classes(name, labels),
    )


def _check_no_arguments(name: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C do not tell
        return
    try:
        signature.bind()
    except TypeError as fault:
        raise UserCodeError(
            f"{name} must be callable without arguments, but {fault}; give its parameters defaults"
        ) from fault


def _parts(name: str, came: Any, or_else: str) -> tuple[Any, Any, Any, Any]:
    if isinstance(came, tuple | list):
        if len(came) == 4 and all(map(_is_array, came)):
            return came[0], came[1], came[2], came[3]
        if len(came) == 2 and all(map(_is_map_style, came)):
            train, test = came
            return *_stacked(name, "training", train), *_stacked(name, "test", test)
    raise UserCodeError(f"{name} must return {or_else}{WANTED}, but {_described(came)} came")


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _is_map_style(value: Any) -> bool:
    indexed = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return indexed and not _is_array(value) and not isinstance(value, Mapping)


def _described(value: Any) -> str:
    if isinstance(value, tuple | list):
        inner = ", ".join(type(item).__name__ for item in value[:6]) + (", …" if len(value) > 6 else "")
        return f"a {type(value).__name__} of {len(value)} ({inner})"
    return f"a {type(value).__name__}"


def _stacked(name: str, split: str, pairs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All (x, y) pairs of a map-style data set: (N, ...) float32 and (N,) int64."""
    count = len(pairs)
    if count == 0:
        raise DataError(f"{name}: the {split} split must have samples, but is empty")
    x, labels = torch.empty(0), []
    for index in range(count):
        where = f"{name}: sample {index} of the {split} split"
        values, label = _pair(where, pairs[index])
        if index == 0:
            x = torch.empty((count, *values.shape), dtype=torch.float32)
        if values.shape != x.shape[1:]:
            raise DataError(
                f"{where} must have the shape of sample 0, {tuple(x.shape[1:])}, but has "
                f"{tuple(values.shape)}; bring all to one size"
            )
        x[index] = values
        labels.append(label)
    return x, torch.tensor(labels)


def _pair(where: str, sample: Any) -> tuple[torch.Tensor, int]:
    is_pair = isinstance(sample, tuple | list) and len(sample) == 2
    if not (is_pair and _is_array(sample[0])):
        what_to_do = (
            "a transform such as torchvision's ToTensor makes tensors of images"
            if is_pair
            else "a network is given one tensor a sample, and judged by its class number: return these two"
        )
        raise UserCodeError(
            f"{where} must be a pair (x, y) with x a tensor or NumPy array, but {_described(sample)} came; "
            f"{what_to_do}"
        )
    try:
        label = operator.index(sample[1])
    except TypeError as fault:
        raise DataError(
            f"{where} must have a class number as its label, but has {sample[1]!r}; give a whole number"
        ) from fault
    return _values(where, sample[0]), label


def _values(what: str, x: Any) -> torch.Tensor:
    tensor = _tensor(what, x)
    if tensor.is_complex():
        raise DataError(
            f"{what} must hold real numbers, but is {tensor.dtype}; give real and imaginary parts"
        )
    return tensor.to(torch.float32)


def _labels(what: str, y: Any) -> torch.Tensor:
    tensor = _tensor(what, y)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise DataError(
            f"{what} must be class numbers of an integer dtype, but are {tensor.dtype}; "
            "convert them by .long() or .astype(int)"
        )
    return tensor.to(torch.int64)


def _tensor(what: str, array: torch.Tensor | npt.NDArray[Any]) -> torch.Tensor:
    """On the CPU and contiguous, of the same dtype."""
    if isinstance(array, torch.Tensor):
        try:
            return array.detach().cpu().contiguous()
        except (NotImplementedError, RuntimeError) as fault:
            raise DataError(
                f"{what} must be a dense tensor in memory, but is {array.layout} on {array.device}; "
                "convert it, as by .to_dense()"
            ) from fault
    try:
        # Copied, because torch warns of read-only memory and refuses negative strides and foreign byte order.
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as fault:
        raise DataError(f"{what} must hold numbers, but is of dtype {array.dtype}; convert it") from fault


def _classes(name: str, train_y: torch.Tensor) -> tuple[str, ...]:
    greatest = int(train_y.max()) if train_y.numel() else 0
    if greatest >= max(train_y.numel(), 1):
        raise DataError(
            f"{name}: labels must be class numbers from 0 on, but the greatest is {greatest:,} with "
            f"{train_y.numel():,} training samples; number the classes 0, 1, 2, …"
        )
    return tuple(str(label) for label in range(max(greatest, 0) + 1))
