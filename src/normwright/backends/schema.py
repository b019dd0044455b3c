"""Every operator of the namespace `normwright`, defined once, with its fake implementation.

One family per memory access pattern, not one per layer name:

    rows        reduce the trailing axes                            layer norm, RMS norm
    groups      reduce a group of channels and space, per sample    group, instance, filter response norm
    channels    reduce all but the channel axis                     batch norm in training
    channel_affine    reduce nothing, the moments are known         batch norm in inference
    parts       reduce some positions of every channel              ghost, split and masked batch norm
    channel_tanh      reduce nothing, there are no moments          dynamic tanh
    lstm_cell         reduce nothing                                what lies between the norms of an LSTM

each   y = activation(x̂·weight + bias + residual),  x̂ = (x - mean)·rstd,  rstd = 1/√(variance + eps),
but for channel_tanh:   y = tanh(alpha·x)·weight + bias   with a scalar alpha and the channels on any `axis`,
and for lstm_cell, below.

x is (N, C, *space), or (*outer, *normalized_shape) for rows, in any strides; y, dx and dresidual keep
the strides of `torch.empty_like(x)`. weight and bias have x's dtype or a wider one. `moments` are mean and
rstd in one tensor of `statistics_dtype(x)`: (2, C) for channels, (2, N, groups) for groups, and (2, *outer)
for rows, where `axes` is the number of trailing axes. Without `center` the mean is taken as 0, and `moments`
are rstd alone, (1, …).
`wanted` is a sum of gradients.py's bits; a gradient that it leaves out is None. residual and bias matter to
a backward only through the activation's input; a mask of relu or leaky_relu (masks.py), which a
`_forward_masked` keeps, undoes the activation, the backward then takes no residual, and dresidual comes in
the likeness of x.

An argument costs 0.2 µs, a list 1, a tensor that is returned 0.7, where the smallest call takes 5: hence one
tensor of moments, bits for a list, and operators that return no more than is asked for.

An `_inference` returns y alone, for where no backward follows. An operator whose name ends in `_out` writes
y to `out`, which may be x itself. `channel_moments` gives the count, mean and M2 (the sum of squared
deviations) of each channel.

A part is some of the N·space positions of x, which are numbered as if flattened. `spans` (S, 3), int64, on
the CPU wherever x is, has the part, the first position and the length of each run of positions, in any order;
no two overlap. The moments are mean, rstd and biased variance, (3, parts, C). y is 0 where no part is, and so
are dx and dresidual.

lstm_cell and its backward are a step of an LSTM around its normalisers, and write to what they are given,
the rows of a step in tensors of all steps. Gates, z and dz are (N, 4H), i, f, g and o one after the other.

    i, f, o = σ(z…),  g = tanh(z…),  c = f·before + i·g,    and where h = o·squashed:
    dc = dcell + through,  dz = (dc·g·i(1 - i), dc·before·f(1 - f), dc·i·(1 - g²), dh·squashed·o(1 - o)),
    dcell ← dc·f

Gates may be z, dz gates, and cell may be before: otherwise what is written lies apart from what is read.

channels_forward moves the running statistics in place, with the *unbiased* variance:

    running = factor·batch + (1 - factor)·running,   factor = momentum, or 1/num_batches_tracked where None

A backend registers its kernels for its own dispatch key; `eager.py` serves every other device. Each refuses a
call with an argument that is not as said here: `checks.py`, and csrc/checks.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from normwright.backends import eager, masks
from normwright.backends.checks import checked
from normwright.backends.gradients import DALPHA, DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.moments import statistics_dtype

NAMESPACE = "normwright"

_INPUTS = "Tensor x, Tensor? residual, Tensor? weight, Tensor? bias"
_ACTIVATION = "str? activation"
_RESULTS = "(Tensor y, Tensor moments)"
_MASKED_RESULTS = "(Tensor y, Tensor moments, Tensor mask)"
_GRADIENTS = "(Tensor? dx, Tensor? dresidual, Tensor? dweight, Tensor? dbias)"
_ROWS = f"{_INPUTS}, SymInt axes, bool center, float eps, {_ACTIVATION}"
_GROUPS = f"{_INPUTS}, SymInt groups, bool center, float eps, {_ACTIVATION}"
_CHANNELS = (
    f"{_INPUTS}, Tensor(a!)? running_mean, Tensor(b!)? running_var, Tensor(c!)? num_batches_tracked, "
    f"float? momentum, float eps, {_ACTIVATION}"
)
_AFFINE = f"{_INPUTS}, Tensor mean, Tensor variance, float eps, {_ACTIVATION}"
_PARTS = "Tensor spans, SymInt parts"
_PARTS_KEPT = f"Tensor dy, {_INPUTS}, Tensor moments, {_PARTS}"
_TANH = "Tensor x, Tensor alpha, Tensor? weight, Tensor? bias, int axis"
_TANH_GRADIENTS = "(Tensor? dx, Tensor? dalpha, Tensor? dweight, Tensor? dbias)"
_CELL_KEPT = "Tensor dh, Tensor squashed, Tensor through, Tensor gates, Tensor before"
_KEPT = f"Tensor dy, {_INPUTS}, Tensor? mask, Tensor moments"

SCHEMAS = (
    f"rows_forward({_ROWS}) -> {_RESULTS}",
    f"rows_forward_masked({_ROWS}) -> {_MASKED_RESULTS}",
    f"rows_inference({_ROWS}) -> Tensor",
    f"rows_inference_out({_ROWS}, Tensor(a!) out) -> ()",
    f"rows_backward({_KEPT}, SymInt axes, bool center, {_ACTIVATION}, int wanted) -> {_GRADIENTS}",
    f"groups_forward({_GROUPS}) -> {_RESULTS}",
    f"groups_forward_masked({_GROUPS}) -> {_MASKED_RESULTS}",
    f"groups_inference({_GROUPS}) -> Tensor",
    f"groups_inference_out({_GROUPS}, Tensor(a!) out) -> ()",
    f"groups_backward({_KEPT}, SymInt groups, bool center, {_ACTIVATION}, int wanted) -> {_GRADIENTS}",
    f"channels_forward({_CHANNELS}) -> {_RESULTS}",
    f"channels_forward_masked({_CHANNELS}) -> {_MASKED_RESULTS}",
    f"channels_backward({_KEPT}, {_ACTIVATION}, int wanted) -> {_GRADIENTS}",
    f"parts_forward({_INPUTS}, {_PARTS}, float eps, {_ACTIVATION}) -> {_RESULTS}",
    f"parts_backward({_PARTS_KEPT}, {_ACTIVATION}, int wanted) -> {_GRADIENTS}",
    f"channel_affine({_AFFINE}) -> Tensor",
    f"channel_affine_out({_AFFINE}, Tensor(a!) out) -> ()",
    f"channel_affine_backward(Tensor dy, {_AFFINE}, int wanted) -> {_GRADIENTS}",
    "channel_moments(Tensor x) -> (Tensor count, Tensor mean, Tensor m2)",
    f"channel_tanh({_TANH}) -> Tensor",
    f"channel_tanh_backward(Tensor dy, {_TANH}, int wanted) -> {_TANH_GRADIENTS}",
    "lstm_cell(Tensor z, Tensor before, Tensor(a!) gates, Tensor(b!) cell) -> ()",
    f"lstm_cell_backward({_CELL_KEPT}, Tensor(a!) dcell, Tensor(b!) dz) -> ()",
)

NAMES = tuple(schema[: schema.index("(")] for schema in SCHEMAS)

Results = tuple[Tensor, Tensor]
MaskedResults = tuple[Tensor, Tensor, Tensor]


def _statistics(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.new_empty(shape, dtype=statistics_dtype(x))


def _mask(x: Tensor, order: masks.Order) -> Tensor:
    return x.new_empty(masks.mask_shape(x, order), dtype=torch.uint8)


def _rows_forward(
    x: Tensor, residual: Any, weight: Any, bias: Any, axes: int, center: bool, *_: Any
) -> Results:
    outer = x.shape[: x.dim() - axes]
    return torch.empty_like(x), _statistics(x, (2 if center else 1, *outer))


def _rows_forward_masked(
    x: Tensor, residual: Any, weight: Any, bias: Any, axes: int, *settings: Any
) -> MaskedResults:
    mask = _mask(x, masks.rows_order(x, axes))
    return *_rows_forward(x, residual, weight, bias, axes, *settings), mask


def _groups_forward(
    x: Tensor, residual: Any, weight: Any, bias: Any, groups: int, center: bool, *_: Any
) -> Results:
    return torch.empty_like(x), _statistics(x, (2 if center else 1, x.shape[0], groups))


def _groups_forward_masked(
    x: Tensor, residual: Any, weight: Any, bias: Any, groups: int, *settings: Any
) -> MaskedResults:
    mask = _mask(x, masks.groups_order(x, groups))
    return *_groups_forward(x, residual, weight, bias, groups, *settings), mask


def _channels_forward(x: Tensor, *_: Any) -> Results:
    return torch.empty_like(x), _statistics(x, (2, x.shape[1]))


def _channels_forward_masked(x: Tensor, *_: Any) -> MaskedResults:
    return *_channels_forward(x), _mask(x, masks.channels_order(x))


def _parts_forward(
    x: Tensor, residual: Any, weight: Any, bias: Any, spans: Tensor, parts: int, *_: Any
) -> Results:
    return torch.empty_like(x), _statistics(x, (3, parts, x.shape[1]))


def _only_y(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _channel_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _statistics(x, ()), _statistics(x, (x.shape[1],)), _statistics(x, (x.shape[1],))


def _any_out(*_: Any) -> None:
    """Only changes what it is given."""


def _any_backward(
    dy: Tensor, x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, *settings: Any
) -> tuple[Tensor | None, ...]:
    *_, wanted = settings
    # With a mask the residual is not kept; its gradient is then like x.
    sources = zip(
        (DX, DRESIDUAL, DWEIGHT, DBIAS), (x, x if residual is None else residual, weight, bias), strict=True
    )
    return _gradients(sources, wanted)


def _channel_tanh_backward(
    dy: Tensor, x: Tensor, alpha: Tensor, weight: Tensor | None, bias: Tensor | None, axis: int, wanted: int
) -> tuple[Tensor | None, ...]:
    return _gradients(zip((DX, DALPHA, DWEIGHT, DBIAS), (x, alpha, weight, bias), strict=True), wanted)


def _gradients(sources: Iterable[tuple[int, Tensor | None]], wanted: int) -> tuple[Tensor | None, ...]:
    return tuple(
        torch.empty_like(source) if wanted & bit and source is not None else None for bit, source in sources
    )


FAKES: dict[str, Callable[..., Any]] = {
    "rows_forward": _rows_forward,
    "rows_forward_masked": _rows_forward_masked,
    "rows_inference": _only_y,
    "rows_inference_out": _any_out,
    "rows_backward": _any_backward,
    "groups_forward": _groups_forward,
    "groups_forward_masked": _groups_forward_masked,
    "groups_inference": _only_y,
    "groups_inference_out": _any_out,
    "groups_backward": _any_backward,
    "channels_forward": _channels_forward,
    "channels_forward_masked": _channels_forward_masked,
    "channels_backward": _any_backward,
    "parts_forward": _parts_forward,
    "parts_backward": _any_backward,
    "channel_affine": _only_y,
    "channel_affine_out": _any_out,
    "channel_affine_backward": _any_backward,
    "channel_moments": _channel_moments,
    "channel_tanh": _only_y,
    "channel_tanh_backward": _channel_tanh_backward,
    "lstm_cell": _any_out,
    "lstm_cell_backward": _any_out,
}


def register(library: torch.library.Library) -> None:
    """Defines every operator, with the eager kernel for every device and its fake."""
    for schema in SCHEMAS:
        name = library.define(schema)
        library.impl(name, eager.OPERATORS[name], "CompositeExplicitAutograd")
        # A tensor on the device "meta" brings a call here whatever the others lie on.
        fake = checked(name, FAKES[name])
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=library)
