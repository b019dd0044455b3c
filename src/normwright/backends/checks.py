"""What the operators ask of their arguments, whoever calls them.

The functions of `functional/` check a call for what PyTorch would say to it. Who traces, exports or calls an
operator by hand comes past them, and a kernel would take sizes on trust: what is asked here is what it needs
in order to read and write nothing but what it is given. csrc/checks.h asks the same, in the same words.

An argument's name says what it must be, for it means the same in every operator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from normwright.backends import masks
from normwright.backends.activation import ACTIVATIONS
from normwright.backends.devices import check_devices
from normwright.backends.families import FAMILIES, Family, Given, Shape
from normwright.backends.gradients import ALL
from normwright.errors import DeviceError, DtypeError, OptionError, ShapeError, unknown_name

DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))

# The tensors that have an element for each of x's, and those that have one for each parameter.
_LIKE_X = ("dy", "residual", "out")
_LIKE_A_PARAMETER = ("weight", "bias", "running_mean", "running_var", "mean", "variance")

_UNITS = ("dh", "squashed", "through", "cell", "dcell")
_GATES = ("z", "gates", "dz")

_COUNTERS = DTYPES | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}


def check(operator: str, call: Sequence[Any]) -> None:
    """Raises an error that names the first argument that is not what it must be; reads no values."""
    signature = _signature_of(operator)
    given = dict(zip(signature.names, call, strict=True))
    signature.check(signature, given)


def checked(operator: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that serves the operator, behind its check."""

    @functools.wraps(function)
    def serve(*call: Any) -> Any:
        check(operator, call)
        return function(*call)

    return serve


class _Signature(NamedTuple):
    """An operator's arguments by what is asked of them, which is found once."""

    names: tuple[str, ...]
    tensors: tuple[str, ...]  # that lie on one device
    needed: frozenset[str]  # the tensors that must be there
    written: tuple[str, ...]
    like_x: tuple[str, ...]
    like_a_parameter: tuple[str, ...]
    family: Family
    alone: tuple[Callable[[Given, Family], None], ...]  # checks of a single argument
    check: Callable[[_Signature, Given], None]


@functools.cache
def _signature_of(operator: str) -> _Signature:
    arguments = getattr(torch.ops.normwright, operator).default._schema.arguments
    names = tuple(argument.name for argument in arguments)
    tensors = (argument.name for argument in arguments if "Tensor" in str(argument.type))
    needed = (argument.name for argument in arguments if str(argument.type) == "Tensor")
    alone = [check_alone for name, check_alone in _ALONE.items() if name in names]
    if operator.endswith("_masked"):
        alone.append(_check_is_undone_by_masks)
    return _Signature(
        names,
        tuple(name for name in tensors if name != "spans"),
        frozenset(needed),
        tuple(argument.name for argument in arguments if argument.alias_info is not None),
        tuple(name for name in names if name in _LIKE_X),
        tuple(name for name in names if name in _LIKE_A_PARAMETER),
        FAMILIES[operator.split("_")[0]],
        tuple(alone),
        _check_cell if "before" in names else _check_normaliser,
    )


def _check_tensors(signature: _Signature, given: Given, model_name: str) -> None:
    """They are there, dense, and on one device."""
    model = given[model_name]
    _check_given(model_name, model)
    for name in signature.tensors:
        tensor = given[name]
        if tensor is None:
            if name in signature.needed:
                _check_given(name, tensor)
        elif tensor.layout is not torch.strided:
            raise OptionError(
                f"{name} must be dense, torch.strided, but is {tensor.layout}: use its to_dense()"
            )
        elif tensor.device != model.device:
            check_devices([given[name] for name in signature.tensors])


def _check_normaliser(signature: _Signature, given: Given) -> None:
    _check_tensors(signature, given, "x")
    x, family = given["x"], signature.family
    _check_floating("x", x)
    shape, parameter_shape = x.shape, family.parameter(given)
    for name in signature.like_x:
        _check_floats(name, given[name], shape, "that of x")
    for name in signature.like_a_parameter:
        _check_floats(name, given[name], parameter_shape, family.why)
    for check_alone in signature.alone:
        check_alone(given, family)


def _check_cell(signature: _Signature, given: Given) -> None:
    _check_tensors(signature, given, "before")
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
    for name in signature.written:
        check_is_written(name, given[name])


# ---- What is asked of one argument


def _check_moments(given: Given, family: Family) -> None:
    _check_floats("moments", given["moments"], family.moments(given), "that of its forward")


def _check_mask(given: Given, family: Family) -> None:
    mask = given["mask"]
    if mask is None:
        return
    _check_is_undone_by_masks(given, family)
    if mask.dtype != torch.uint8:
        raise DtypeError(f"mask must be uint8, but is {mask.dtype}")
    # Inductor asks a fake with strides that it chose for x, and calls the operator with those of the forward.
    if not is_fake(given["x"]):
        _check_shape("mask", mask, masks.mask_shape(given["x"], family.order(given)), "that of its forward")


def _check_is_undone_by_masks(given: Given, family: Family) -> None:
    if given["activation"] not in masks.MASKED:
        raise OptionError("the activation must be relu or leaky_relu where there is a mask")


def _check_activation(given: Given, family: Family) -> None:
    activation = given["activation"]
    if activation is not None and activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)


def _check_out(given: Given, family: Family) -> None:
    _check_same_dtype("out", given["out"], "x", given["x"])
    check_is_written("out", given["out"])


def _check_alpha(given: Given, family: Family) -> None:
    _check_floating("alpha", given["alpha"])
    _check_number("alpha", given["alpha"])


def _check_counter(given: Given, family: Family) -> None:
    counter = given["num_batches_tracked"]
    if counter is not None:
        _check_number("num_batches_tracked", counter)
    elif given["momentum"] is None and None not in (given["running_mean"], given["running_var"]):
        raise OptionError("momentum must be a number where num_batches_tracked is None, but is None")


def _check_moves(name: str) -> Callable[[Given, Family], None]:
    def check_moves(given: Given, family: Family) -> None:
        statistic = given[name]
        if statistic is not None and statistic.stride(0) == 0 and statistic.shape[0] > 1:
            raise ShapeError(
                f"{name} must have memory for each channel, as it is moved in place, but is expanded: "
                "use its clone()"
            )

    return check_moves


def _check_spans(given: Given, family: Family) -> None:
    """Rows of three whole numbers; who reads them asks what they say."""
    spans = given["spans"]
    _check_given("spans", spans)
    # They belong on the CPU, but under a default device are made on that.
    if not spans.is_cpu and spans.device != given["x"].device:
        raise DeviceError(f"spans must be on the CPU or where x is, but are on {spans.device}")
    if spans.dtype != torch.int64 or spans.dim() != 2 or spans.shape[1] != 3:
        raise ShapeError("spans must be int64 rows of part, first position and length")


def _check_parts(given: Given, family: Family) -> None:
    if given["parts"] < 0:
        raise ShapeError(f"parts must be at least 0, but is {given['parts']}")


def _check_wanted(given: Given, family: Family) -> None:
    if not 0 <= given["wanted"] <= ALL:
        raise OptionError(
            f"wanted must be at least 0 and at most {ALL}, the sum of all gradients' bits, "
            f"but is {given['wanted']}"
        )


# In the order in which they are asked.
_ALONE = {
    "activation": _check_activation,
    "parts": _check_parts,
    "moments": _check_moments,
    "mask": _check_mask,
    "out": _check_out,
    "alpha": _check_alpha,
    "running_mean": _check_moves("running_mean"),
    "running_var": _check_moves("running_var"),
    "num_batches_tracked": _check_counter,
    "spans": _check_spans,
    "wanted": _check_wanted,
}


# ---- What is asked of a tensor


def check_is_written(name: str, tensor: Tensor) -> None:
    """A tensor that is written has memory of its own for each element.

    An axis steps over what the quicker ones span, as in every view that PyTorch makes of such a tensor.
    """
    if tensor.is_contiguous():
        return
    steps = [step for step in zip(tensor.stride(), tensor.shape, strict=True) if step[1] > 1]
    span = 1
    for stride, size in sorted(steps):
        if stride < span:
            raise ShapeError(
                f"{name} must have memory for each element, as it is written, but is expanded or overlaps "
                "itself: use its clone()"
            )
        span = span + stride * (size - 1)


def _check_given(name: str, tensor: Tensor | None) -> None:
    if tensor is None:
        raise OptionError(f"{name} must be a tensor, but is None")


def _check_floats(name: str, tensor: Tensor | None, shape: Shape, why: str) -> None:
    if tensor is None or (tensor.dtype in DTYPES and tensor.shape == shape):
        return
    _check_floating(name, tensor)
    _check_shape(name, tensor, shape, why)


def _check_floating(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise DtypeError(f"{name} must be float32, float64, bfloat16 or float16, but is {tensor.dtype}")


def _check_shape(name: str, tensor: Tensor, shape: Shape, why: str) -> None:
    if tensor.shape != shape:
        raise ShapeError(f"{name} must have shape {list(shape)}, {why}, but has shape {list(tensor.shape)}")


def _check_same_dtype(name: str, tensor: Tensor, model_name: str, model: Tensor) -> None:
    if tensor.dtype != model.dtype:
        raise DtypeError(f"{name} must have the dtype of {model_name}, {model.dtype}, but is {tensor.dtype}")


def _check_number(name: str, tensor: Tensor) -> None:
    if tensor.numel() != 1:
        raise ShapeError(f"{name} must be one number, but has shape {list(tensor.shape)}")
    if tensor.dtype not in _COUNTERS:
        raise DtypeError(f"{name} must be a number, but is {tensor.dtype}")
