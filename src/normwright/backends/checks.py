"""What the operators ask of their arguments, whoever calls them.

The functions of `functional/` check a call for what PyTorch would say to it. Who traces, exports or calls an
operator by hand comes past them, and a kernel would take sizes on trust: what is asked here is what it needs
in order to read and write nothing but what it is given. csrc/checks.h asks the same, in the same words.

An argument's name says what it must be, for it means the same in every operator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends import masks
from normwright.backends.activation import ACTIVATIONS
from normwright.backends.devices import check_devices
from normwright.errors import DeviceError, DtypeError, OptionError, ShapeError, unknown_name

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_Given = Mapping[str, Any]

# The tensors that have an element for each of x's, and those that have one for each parameter.
_LIKE_X = ("dy", "residual", "out")
_LIKE_A_PARAMETER = ("weight", "bias", "running_mean", "running_var", "mean", "variance")

_UNITS = ("dh", "squashed", "through", "cell", "dcell")
_GATES = ("z", "gates", "dz")

_COUNTERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, *DTYPES)

_EACH_CHANNEL = "an element for each channel"


class _Asked(NamedTuple):
    """The shapes that a family asks for, and why a parameter's; the mask's is that of an order."""

    parameter: Sequence[int]
    why: str = _EACH_CHANNEL
    moments: Sequence[int] = ()
    order: masks.Order | None = None


def check(operator: str, call: Sequence[Any]) -> None:
    """Raises an error that names the first argument that is not what it must be; reads no values."""
    given = dict(zip(_names_of(operator), call, strict=True))
    _check_devices(given)
    if "before" in given:
        _check_cell(given)
    else:
        _check_normaliser(operator, given)


def checked(operator: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that serves the operator, behind its check."""

    @functools.wraps(function)
    def serve(*call: Any) -> Any:
        check(operator, call)
        return function(*call)

    return serve


@functools.cache
def _names_of(operator: str) -> tuple[str, ...]:
    schema = getattr(torch.ops.normwright, operator).default._schema
    return tuple(argument.name for argument in schema.arguments)


def _check_devices(given: _Given) -> None:
    check_devices([value for name, value in given.items() if name != "spans"])
    spans = given.get("spans")
    # What is on the device "meta" is not read.
    if spans is not None and not spans.is_cpu and not given["x"].is_meta:
        raise DeviceError(f"spans must be on the CPU, wherever x is, but are on {spans.device}")


def _check_normaliser(operator: str, given: _Given) -> None:
    x = given["x"]
    _check_floating("x", x)
    asked = _FAMILIES[operator.split("_")[0]](given)
    for name in _LIKE_X:
        _check_floats(name, given.get(name), x.shape, "that of x")
    for name in _LIKE_A_PARAMETER:
        _check_floats(name, given.get(name), asked.parameter, asked.why)
    _check_floats("moments", given.get("moments"), asked.moments, "that of its forward")
    activation = given.get("activation")
    if activation is not None and activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    _check_mask(operator, given, asked.order)
    if "out" in given:
        _check_same_dtype("out", given["out"], "x", x)
    if "alpha" in given:
        _check_floating("alpha", given["alpha"])
        _check_number("alpha", given["alpha"])
    if "running_mean" in given:
        _check_running(given)
    if "spans" in given:
        _check_spans(given["spans"])


def _check_mask(operator: str, given: _Given, order: masks.Order | None) -> None:
    mask = given.get("mask")
    if (mask is not None or operator.endswith("_masked")) and given["activation"] not in masks.MASKED:
        raise OptionError("the activation must be relu or leaky_relu where there is a mask")
    if mask is None:
        return
    if mask.dtype != torch.uint8:
        raise DtypeError(f"mask must be uint8, but is {mask.dtype}")
    assert order is not None
    _check_shape("mask", mask, masks.mask_shape(given["x"], order), "that of its forward")


def _check_running(given: _Given) -> None:
    statistics = {name: given[name] for name in ("running_mean", "running_var")}
    for name, statistic in statistics.items():
        if statistic is not None and statistic.shape[0] > 1 and statistic.stride(0) == 0:
            raise ShapeError(
                f"{name} must have memory for each channel, as it is moved in place, but is expanded: "
                "use its clone()"
            )
    counter = given["num_batches_tracked"]
    if counter is not None:
        _check_number("num_batches_tracked", counter)
    elif given["momentum"] is None and None not in statistics.values():
        raise OptionError("momentum must be a number where num_batches_tracked is None, but is None")


def _check_spans(spans: Tensor) -> None:
    """Rows of three whole numbers; who reads them asks what they say."""
    if spans.dtype != torch.int64 or spans.dim() != 2 or spans.shape[1] != 3:
        raise ShapeError("spans must be int64 rows of part, first position and length")


def _check_cell(given: _Given) -> None:
    before = given["before"]
    _check_floating("before", before)
    if before.dim() != 2:
        raise ShapeError(f"before must be (N, H), but has shape {list(before.shape)}")
    rows, units = before.shape
    for names, width, why in (
        (_UNITS, units, "(N, H) as before"),
        (_GATES, 4 * units, "(N, 4·H) where before is (N, H)"),
    ):
        for name in names:
            if name in given:
                _check_shape(name, given[name], (rows, width), why)
                _check_same_dtype(name, given[name], "before", before)


def _rows(given: _Given) -> _Asked:
    x, axes = given["x"], given["axes"]
    if not 1 <= axes <= x.dim():
        raise ShapeError(f"axes must be at least 1 and at most those of x, {x.dim()}, but is {axes}")
    outer = x.dim() - axes
    moments = (_moments_of(given), *x.shape[:outer])
    order = masks.rows_order(x, axes) if given.get("mask") is not None else None
    return _Asked(x.shape[outer:], "that of the axes that are normalised", moments, order)


def _groups(given: _Given) -> _Asked:
    x, groups = given["x"], given["groups"]
    channels = _channels_of(x)
    # Without channels there may be no groups.
    if channels % groups if groups > 0 else (groups or channels):
        raise ShapeError(f"groups must divide the channels of x, {channels}, but is {groups}")
    order = masks.groups_order(x, groups) if given.get("mask") is not None else None
    return _Asked((channels,), moments=(_moments_of(given), x.shape[0], groups), order=order)


def _channels(given: _Given) -> _Asked:
    x = given["x"]
    channels = _channels_of(x)
    order = masks.channels_order(x) if given.get("mask") is not None else None
    return _Asked((channels,), moments=(2, channels), order=order)


def _parts(given: _Given) -> _Asked:
    channels, parts = _channels_of(given["x"]), given["parts"]
    if parts < 0:
        raise ShapeError(f"parts must be at least 0, but is {parts}")
    return _Asked((channels,), moments=(3, parts, channels))


def _channel(given: _Given) -> _Asked:
    x = given["x"]
    axis = given.get("axis")
    if axis is None:
        return _Asked((_channels_of(x),))
    if not 0 <= axis < x.dim():
        raise ShapeError(f"axis must be at least 0 and below the axes of x, {x.dim()}, but is {axis}")
    return _Asked((x.shape[axis],))


# By the beginning of an operator's name.
_FAMILIES = {"rows": _rows, "groups": _groups, "channels": _channels, "parts": _parts, "channel": _channel}


def _channels_of(x: Tensor) -> int:
    if x.dim() < 2:
        raise ShapeError(f"x must be (N, C, *space), but has shape {list(x.shape)}")
    return x.shape[1]


def _moments_of(given: _Given) -> int:
    return 2 if given["center"] else 1


def _check_floats(name: str, tensor: Tensor | None, shape: Sequence[int], why: str) -> None:
    if tensor is not None:
        _check_floating(name, tensor)
        _check_shape(name, tensor, shape, why)


def _check_floating(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise DtypeError(f"{name} must be float32, float64, bfloat16 or float16, but is {tensor.dtype}")


def _check_shape(name: str, tensor: Tensor, shape: Sequence[int], why: str) -> None:
    if tensor.shape != tuple(shape):
        raise ShapeError(f"{name} must have shape {list(shape)}, {why}, but has shape {list(tensor.shape)}")


def _check_same_dtype(name: str, tensor: Tensor, model_name: str, model: Tensor) -> None:
    if tensor.dtype != model.dtype:
        raise DtypeError(f"{name} must have the dtype of {model_name}, {model.dtype}, but is {tensor.dtype}")


def _check_number(name: str, tensor: Tensor) -> None:
    if tensor.numel() != 1:
        raise ShapeError(f"{name} must be one number, but has shape {list(tensor.shape)}")
    if tensor.dtype not in _COUNTERS:
        raise DtypeError(f"{name} must be a number, but is {tensor.dtype}")
