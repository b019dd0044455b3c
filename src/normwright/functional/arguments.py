"""What a call must satisfy. The messages begin with PyTorch's own words, then say what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from normwright.backends.activation import ACTIVATIONS
from normwright.errors import DtypeError, OptionError, ShapeError, unknown_name
from normwright.functional.sharded import check_goes_with

HALF_DTYPES = (torch.float16, torch.bfloat16)

# The dtypes that a parameter may have, by the input's.
_PARAMETER_DTYPES = {
    torch.float32: (torch.float32,),
    torch.float64: (torch.float64,),
    **{half: (half, torch.float32) for half in HALF_DTYPES},
}

# What a tensor is where nothing but its dtype and shape is left to ask: no DTensor beside a plain input.
_TENSORS = frozenset((Tensor, torch.nn.Parameter))

# PyTorch's names for dtypes in its messages.
_DTYPE_NAMES = {
    torch.bool: "Bool",
    torch.uint8: "Byte",
    torch.int8: "Char",
    torch.int16: "Short",
    torch.int32: "Int",
    torch.int64: "Long",
    torch.complex64: "ComplexFloat",
    torch.complex128: "ComplexDouble",
}


def is_plain(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, activation: str | None
) -> bool:
    """Whether a call passes every check, but for the shapes of weight and bias.

    Nearly every call does, and asking this costs a third of asking one thing after the other: a microsecond,
    which is a tenth of the smallest call. A call that does not is checked for what to say.
    """
    dtypes = _PARAMETER_DTYPES.get(getattr(x, "dtype", None))  # type: ignore[arg-type]
    return (
        dtypes is not None
        and (weight is None or (type(weight) in _TENSORS and weight.dtype in dtypes))
        and (bias is None or (type(bias) in _TENSORS and bias.dtype in dtypes))
        and (activation is None or activation in ACTIVATIONS)
        and (residual is None or (_is_floating_point(residual) and residual.shape == x.shape))
    )


def _is_floating_point(tensor: Tensor) -> bool:
    return type(tensor) in _TENSORS and tensor.dtype in _PARAMETER_DTYPES


def is_trailing_shape(x: Tensor, normalized_shape: Sequence[int], *parameters: Tensor | None) -> bool:
    """Whether `normalized_shape` is a tuple of ints, x's trailing shape, and each parameter's."""
    if type(normalized_shape) is not tuple or not normalized_shape:
        return False
    for size in normalized_shape:
        if type(size) is not int:
            return False
    for parameter in parameters:
        if parameter is not None and parameter.shape != normalized_shape:
            return False
    return x.shape[-len(normalized_shape) :] == normalized_shape


def is_channel_vector(vector: Tensor | None, channels: int) -> bool:
    """Whether there is no vector, or it is (channels,)."""
    return vector is None or vector.shape == (channels,)


def is_statistic(vector: Tensor | None, channels: int) -> bool:
    """Whether there is no vector, or it is (channels,) and floating point."""
    return vector is None or (
        type(vector) in _TENSORS and vector.shape == (channels,) and vector.is_floating_point()
    )


def check_floating_point(name: str, x: Tensor) -> None:
    """The input is floating point; `name` is what PyTorch calls the operator in its message."""
    if not isinstance(x, Tensor):
        raise DtypeError(
            f"argument 'input' (position 1) must be Tensor, not {type(x).__name__}: use torch.as_tensor"
        )
    if not x.is_floating_point() or x.dtype.itemsize == 1:
        kind = _DTYPE_NAMES.get(x.dtype, str(x.dtype))
        raise DtypeError(f'"{name}" not implemented for {kind!r}: convert the input to floating point first')


def check_tensors(function: str, x: Tensor, place: int, **given: Tensor | None) -> None:
    """What was given beside the input are tensors, and DTensors only where it is one.

    Args:
        function: whose arguments they are.
        x: its input.
        place: of the first of them among the function's arguments in PyTorch, from 1.
        given: by their names.
    """
    for at, (name, value) in enumerate(given.items(), place):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise DtypeError(
                f"{function}(): argument {name!r} (position {at}) must be Tensor, not "
                f"{type(value).__name__}: use torch.as_tensor, or leave it out"
            )
        check_goes_with(x, name, value)


def is_number(value: Any) -> bool:
    """Whether it is a real number, and no text, truth value or None in the place of one.

    PyTorch takes True for a float, so the functions that take the place of its own do (`check_float`). The
    others ask this: True is there more likely an option in the wrong place than a 1.
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether PyTorch takes it for an int: NumPy's and integer scalars too, but no truth value."""
    if isinstance(value, Tensor):
        inexact = value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
        return value.dim() == 0 and not inexact
    return isinstance(value, (Integral, torch.SymInt)) and not isinstance(value, bool)


def whole(name: str, value: Any, least: int | None = None) -> int:
    """An option as an int, once it is known to be a whole number, and at least so large."""
    if not is_whole(value) or (least is not None and value < least):
        bound = "" if least is None else f"at least {least} and "
        raise OptionError(f"{name} must be {bound}a whole number, but is {value!r}")
    # A size of a graph that is being made must stay what it is.
    return value if isinstance(value, (int, torch.SymInt)) else int(value)  # type: ignore[return-value]


# The numbers of a graph that is being made are no numbers to Python.
_FLOATS = (Real, torch.SymFloat, torch.SymInt)


def check_float(function: str, name: str, place: int, value: Any) -> None:
    """An option is what PyTorch takes for a float: True and a tensor of one element too.

    Args:
        function: whose option it is.
        name: of the option.
        place: among the function's arguments, from 1.
    """
    if isinstance(value, _FLOATS) or (
        isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
    ):
        return
    raise DtypeError(
        f"{function}(): argument {name!r} (position {place}) must be float, not {type(value).__name__}: "
        f"give a number, but not {value!r}"
    )


def check_scalar(name: str, scalar: Tensor) -> None:
    """A parameter of one element is floating point."""
    if not scalar.is_floating_point() or scalar.dtype.itemsize == 1:
        raise DtypeError(f"{name} must be floating point, but is {scalar.dtype}: convert it first")
    if scalar.numel() != 1:
        raise ShapeError(f"{name} must be a scalar, but has shape {list(scalar.shape)}")


def check_epilogue(x: Tensor, residual: Tensor | None, activation: str | None) -> None:
    """The residual is like the input, and the activation is offered."""
    if activation is not None and activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    if residual is None:
        return
    if not isinstance(residual, Tensor):
        raise DtypeError(
            f"residual must be a tensor of the input's shape {list(x.shape)}, but is "
            f"{type(residual).__name__}: use torch.as_tensor, or leave it out"
        )
    check_goes_with(x, "residual", residual)
    if residual.shape != x.shape or not residual.is_floating_point():
        raise ShapeError(
            f"residual must be floating point and have the input's shape {list(x.shape)}, "
            f"but is {residual.dtype} of shape {list(residual.shape)}"
        )


def check_parameter_dtypes(x: Tensor, *parameters: Tensor | None) -> None:
    """Weight and bias have x's dtype, or float32 where x is a half type."""
    dtype = x.dtype
    for parameter in parameters:
        if parameter is None or parameter.dtype is dtype:
            continue
        if x.dtype in HALF_DTYPES and parameter.dtype == torch.float32:
            continue
        rule = "expect parameter to have scalar type of Float"
        if x.dtype not in (torch.float32, *HALF_DTYPES):
            rule = "all inputs must share same datatype"
        raise DtypeError(
            f"mixed dtype ({x.device.type.upper()}): {rule}. The input is {x.dtype}, a parameter "
            f"{parameter.dtype}: parameters must have the input's dtype, or float32 with a half input"
        )


_CHANNEL_VECTORS = ("running_mean", "running_var", "weight", "bias")


def check_channel_vectors(x: Tensor, *vectors: Tensor | None) -> None:
    """running_mean, running_var, weight and bias hold one element per channel, along one axis."""
    channels = x.size(1)
    for name, vector in zip(_CHANNEL_VECTORS, vectors, strict=False):
        if vector is not None and vector.shape != (channels,):
            raise ShapeError(
                f"{name} should contain {channels} elements not {vector.numel()}: one per channel, which is "
                f"dimension 1 of the input, along one axis, but has shape {list(vector.shape)}"
            )
        if vector is not None and name.startswith("running"):
            check_running_dtype(name, vector)


def check_running_dtype(name: str, statistic: Tensor) -> None:
    """A running statistic is floating point."""
    if not statistic.is_floating_point():
        raise DtypeError(f"{name} must be floating point, but is {statistic.dtype}: convert it first")


def _not_ints(name: str) -> str:
    return f"{name}(): argument 'normalized_shape' (position 2) must be tuple of ints"


def check_normalized_shape(
    name: str,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> None:
    """`normalized_shape` names x's trailing axes, and the parameters have that shape."""
    if not isinstance(normalized_shape, (tuple, list)):
        came = type(normalized_shape).__name__
        raise TypeError(f"{_not_ints(name)}, not {came}: write ({normalized_shape},) for one trailing axis")
    for place, size in enumerate(normalized_shape):
        if isinstance(size, (float, str)):
            raise TypeError(
                f"{_not_ints(name)}, but found element of type {type(size).__name__} at pos {place}"
            )
    shape = tuple(normalized_shape)
    if not shape:
        raise ShapeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, "
            "but got normalized_shape = []"
        )
    for parameter_name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != shape:
            raise ShapeError(
                f"Expected {parameter_name} to be of same shape as normalized_shape, but got "
                f"{parameter_name} of shape {list(parameter.shape)} and normalized_shape = {list(shape)}"
            )
    if x.shape[-len(shape) :] == shape:
        return
    if name == "rms_norm" and x.dim() < len(shape):
        raise ShapeError(f"Input tensor must have at least {len(shape)} dimensions, but got {x.dim()}")
    expected = ", ".join(map(str, shape))
    star = "*" if name == "rms_norm" else "*, "  # as PyTorch writes them
    raise ShapeError(
        f"Given normalized_shape={list(shape)}, expected input with shape [{star}{expected}], "
        f"but got input of size{list(x.shape)}"
    )


def check_eps(name: str, eps: float, *, training: bool) -> None:
    """`eps` is above zero in training, so that a constant input has a finite output, and never below."""
    check_float(name, "eps", 8, eps)
    if training and not 0 < eps < math.inf:
        raise OptionError(f"{name} eps must be positive during training, but got {eps}")
    if not eps >= 0:
        raise OptionError(f"{name} eps must be non-negative, but got {eps}")
